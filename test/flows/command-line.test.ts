// The commands, as processes: what they print, how they end.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { rootFile } from '../../src/root.ts';
import { caller, scoreSend, useHarness } from '../support/harness.ts';

const h = useHarness();
const run = promisify(execFile);

async function rosterpost(args: string[], env: Record<string, string> = {}) {
  return execute(process.execPath, ['--import', 'tsx', rootFile('src/cli.ts'), ...args], env);
}

async function execute(file: string, args: string[], env: Record<string, string>) {
  const options = {
    cwd: rootFile(),
    env: { ...process.env, DATABASE_URL: h.database.url, ...env },
  };
  try {
    const { stdout, stderr } = await run(file, args, options);
    return { code: 0, stdout, stderr };
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
    return { code, stdout, stderr };
  }
}

it('makes clients and keys, lists and revokes them', async () => {
  expect(await rosterpost(['client', 'create', 'shop', '--name', 'The Shop'])).toMatchObject({
    code: 0,
  });
  const again = await rosterpost(['client', 'create', 'shop']);
  expect(again).toMatchObject({ code: 1, stdout: '' });
  expect(again.stderr).toContain('exists already');
  const { stdout } = await rosterpost(['key', 'create', 'shop', '--name', 'ci']);
  const key = stdout.trim();
  expect(key).toMatch(/^rp_\w{8}_\w{32}$/);
  const api = caller(() => h.url, key);
  expect((await api('GET', '/api/senders')).status).toBe(200);
  const list = await rosterpost(['key', 'list']);
  expect(list.stdout).toContain(`${key.slice(0, 11)}\tshop\tci\tlive`);
  expect(list.stdout).not.toContain(key);
  expect(await rosterpost(['key', 'revoke', key.slice(0, 11)])).toMatchObject({ code: 0 });
  expect((await api('GET', '/api/senders')).status).toBe(401);
  expect(await rosterpost(['key', 'revoke', 'rp_nothing1'])).toMatchObject({ code: 1 });
  expect(await rosterpost(['key', 'create', 'nobody'])).toMatchObject({ code: 1 });
});

it('sets where contexts are fetched, and shows the secret only where it is asked for', async () => {
  const { body } = await h.api('GET', '/api/client/context-callback');
  const { secret } = body.context_callback;
  const set = ['client', 'set', 'acme', '--callback-url', 'https://p.example/c', '--name', 'Acme'];
  const url = await rosterpost(set);
  expect(url.code, url.stderr).toBe(0);
  expect(url.stdout).toBe('client\tacme\nname\tAcme\ncallback URL\thttps://p.example/c\n');
  const shown = await rosterpost(['client', 'show', 'acme', '--secret']);
  expect(shown.stdout).toBe(`${url.stdout}callback secret\t${secret}\n`);
  const rotated = await rosterpost(['client', 'set', 'acme', '--new-callback-secret']);
  const { body: after } = await h.api('GET', '/api/client/context-callback');
  expect(after.context_callback.secret).not.toBe(secret);
  expect(rotated.stdout).toContain(after.context_callback.secret);
  const own = `whsec_${Buffer.alloc(32, 1).toString('base64')}`;
  const given = await rosterpost(['client', 'set', 'acme', '--callback-secret', own]);
  expect(given.stdout + given.stderr).not.toContain(own);
  const none = await rosterpost(['client', 'set', 'acme', '--callback-url', '']);
  expect(none.stdout).toContain('callback URL\t-');
  const { body: last } = await h.api('GET', '/api/client/context-callback');
  expect(last).toEqual({ context_callback: { url: null, secret: own } });
  const inside = ['client', 'set', 'acme', '--callback-url', 'http://10.1.0.9:8080/'];
  const refused = await rosterpost(inside);
  expect(refused).toMatchObject({ code: 1, stdout: '' });
  expect(refused.stderr).toContain('url: must be a public address');
  expect((await rosterpost(inside, { CALLBACK_ALLOW: '10.1.0.0/16' })).code).toBe(0);
  const both = ['client', 'set', 'acme', '--new-callback-secret', '--callback-secret', own];
  expect((await rosterpost(both)).code).toBe(2);
  expect((await rosterpost(['client', 'show', 'nobody'])).code).toBe(1);
});

it('ends with 2 for wrong usage and 1 for a wrong configuration, saying everything that is wrong', async () => {
  expect(await rosterpost(['nonsense'])).toMatchObject({ code: 2 });
  expect(await rosterpost(['work', '--lanes', 'urgent,fast'])).toMatchObject({ code: 2 });
  expect(await rosterpost(['send', 'watch'])).toMatchObject({ code: 2 });
  expect(await rosterpost(['--help'])).toMatchObject({ code: 0 });
  const wrong = await rosterpost(['serve'], {
    DATABASE_URL: 'mysql://x',
    PORT: '99999',
    SMTP_URL: 'mail',
    LOG_LEVEL: 'loud',
    CALLBACK_ALLOW: '10.0.0.0/8, 127.1, ::ffff:10.0.0.0/104, fd00::/129',
    CALLBACK_PORTS: '80,https',
    CALLBACK_TIMEOUT_SECONDS: '0',
  });
  expect(wrong.code).toBe(1);
  for (const name of ['DATABASE_URL', 'PORT', 'SMTP_URL', 'LOG_LEVEL', 'CALLBACK_PORTS'])
    expect(wrong.stderr).toContain(`- ${name} `);
  expect(wrong.stderr).toContain('- CALLBACK_TIMEOUT_SECONDS must be a whole number');
  for (const network of ['127.1', '::ffff:10.0.0.0/104', 'fd00::/129'])
    expect(wrong.stderr).toMatch(new RegExp(`- CALLBACK_ALLOW .*"${network}" is none`));
  expect(wrong.stderr).not.toContain('"10.0.0.0/8" is none');
  const away = await rosterpost(['migrate'], { DATABASE_URL: 'postgres://x:y@127.0.0.1:1/z' });
  expect(away.code).toBe(1);
  expect(away.stderr).toContain('The database cannot be reached');
});

it('migrates, also twice at once', async () => {
  const both = await Promise.all([rosterpost(['migrate']), rosterpost(['migrate'])]);
  expect(both.map((one) => one.code)).toEqual([0, 0]);
});

it('watches a send to its end', async () => {
  await h.api('PUT', '/api/recipient-lists/l/members/1', { email: 'a@list.example' });
  const { body } = await h.api('POST', '/api/recipient-lists/l/send', scoreSend());
  const watching = rosterpost(['send', 'watch', body.send.id]);
  await h.drain(body.send.id);
  const { code, stdout } = await watching;
  expect(code).toBe(0);
  expect(stdout).toContain(
    'completed: intended 1 = queued 0 + sent 1 + failed 0 + skipped 0 + unknown 0',
  );
});

it('lets the graphile-worker command line run the pending jobs', async () => {
  await h.api('PUT', '/api/recipient-lists/l/members/1', { email: 'a@list.example' });
  const { body } = await h.api('POST', '/api/recipient-lists/l/send', scoreSend());
  const { code, stdout, stderr } = await execute('npx', ['graphile-worker', '--once'], {
    SMTP_URL: h.sink.url,
    NODE_ENV: 'production',
  });
  expect(code, stderr).toBe(0);
  expect(stdout + stderr).toContain('deliver_chunk');
  const { body: after } = await h.api('GET', `/api/sends/${body.send.id}`);
  expect(after.send).toMatchObject({ state: 'completed', counts: { sent: 1 } });
  expect(h.sink.accepted).toHaveLength(1);
  const { rows } = await h.database.pool.query('select from workers where stopped_at is null');
  expect(rows).toHaveLength(0);
});

it('pauses, resumes and cancels a send, and queues failed ones again', async () => {
  await h.api('PUT', '/api/recipient-lists/l/members/m1', { email: 'a@b.example' });
  const { body } = await h.api('POST', '/api/recipient-lists/l/send', scoreSend());
  const { id } = body.send;
  const counts = 'intended 1 = queued 1 + sent 0 + failed 0 + skipped 0 + unknown 0';
  expect((await rosterpost(['send', 'pause', id])).stdout).toBe(`paused: ${counts}\n`);
  expect((await rosterpost(['send', 'resume', id])).stdout).toBe(`queued: ${counts}\n`);
  const retried = await rosterpost(['send', 'retry-failed', id]);
  expect(retried.stdout).toBe(`Queued again: 0.\nqueued: ${counts}\n`);
  expect((await rosterpost(['send', 'cancel', id])).stdout).toBe(`cancelled: ${counts}\n`);
  const late = await rosterpost(['send', 'pause', id]);
  expect(late).toMatchObject({ code: 1, stderr: 'The send is cancelled.\n' });
  expect((await rosterpost(['send', 'cancel', 'x'])).code).toBe(1);
});
