// The provider in the README, as it stands there: a process of its own, asked with a signed request.
import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { freePort } from '../../src/database/embedded.ts';
import { postSigned, type CallbackAnswer } from '../../src/callback/post.ts';
import { rootFile } from '../../src/root.ts';
import { CALLBACK } from '../support/harness.ts';
import { until } from '../support/until.ts';

const SECRET = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;

it('answers what is signed, and nothing else', async () => {
  const readme = await readFile(rootFile('README.md'), 'utf8');
  const code = /```js\n(\/\/ provider\.mjs\n.*?)```/su.exec(readme)![1]!;
  const port = await freePort();
  const provider = spawn(process.execPath, ['--input-type=module', '--eval', code], {
    cwd: rootFile(), // beside node_modules, as the README says
    env: { ...process.env, CALLBACK_SECRET: SECRET, PROVIDER_PORT: String(port) },
    stdio: 'inherit',
  });
  const ended = new Promise((resolve) => provider.once('exit', resolve));
  try {
    const ask = (secret: string): Promise<CallbackAnswer> =>
      postSigned({
        url: `http://127.0.0.1:${port}/`,
        id: 'send_1',
        secret,
        body: JSON.stringify({
          send_id: 's',
          send_key: 'k',
          list_key: 'l',
          template_key: 't',
          chunk: 1,
          recipients: [
            { source_object_key: 'enrollment-7', email: 'ada@example.com' },
            { source_object_key: 'é:@e', email: 'bob@example.com' },
          ],
        }),
        policy: CALLBACK,
      });
    const answer = await until('the provider', async () => {
      const given = await ask(SECRET);
      return given.kind === 'answered' && given;
    });
    expect(answer.status).toBe(200);
    expect(JSON.parse(answer.body.toString())).toEqual({
      contexts: {
        'enrollment-7': { name: 'ada@example.com', score: 7 },
        'é:@e': { name: 'bob@example.com', score: 7 },
      },
    });
    const other = `whsec_${Buffer.alloc(32, 8).toString('base64')}`;
    expect(await ask(other)).toMatchObject({ kind: 'answered', status: 401 });
  } finally {
    provider.kill();
    await ended;
  }
});
