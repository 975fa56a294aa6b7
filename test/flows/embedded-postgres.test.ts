// The PostgreSQL that `dev`, `demo` and the tests bring: it recovers from being killed, belongs to one
// program at a time, and says what stands in its way.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, readFile, rm, chown } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import pg from 'pg';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { findAccount, findBinaries } from '../../src/database/embedded-binaries.ts';
import { startEmbedded } from '../../src/database/embedded.ts';
import { rootFile } from '../../src/root.ts';
import { until } from '../support/until.ts';

const isRoot = process.getuid?.() === 0;
let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'rosterpost-embedded-'));
  await chmod(folder, 0o755);
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function query(url: string, text: string) {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query(text)).rows;
  } finally {
    await client.end();
  }
}

/** Another process that owns the server in `folder`. */
async function startOwner(options: { uid?: number; gid?: number } = {}) {
  const child = spawn(
    process.execPath,
    ['--import', 'tsx', rootFile('test/support/embedded-owner.ts'), folder],
    {
      cwd: rootFile(),
      stdio: ['pipe', 'pipe', 'inherit'],
      ...options,
    },
  );
  const [line] = await once(child.stdout, 'data');
  return { child: child satisfies ChildProcess, url: line.toString().trim() };
}

const serverPid = async () =>
  Number((await readFile(path.join(folder, 'postgres/postmaster.pid'), 'utf8')).split('\n')[0]);

describe('the embedded PostgreSQL', () => {
  it('keeps its data and its password from run to run', async () => {
    const first = await startEmbedded({ folder });
    await query(first.url, 'create table kept (n integer)');
    await first.stop();
    const second = await startEmbedded({ folder });
    expect(new URL(second.url).password).toBe(new URL(first.url).password);
    expect(await query(second.url, 'select * from kept')).toEqual([]);
    await second.stop();
  });

  it('goes down with a killed owner, and the next start recovers', async () => {
    const owner = await startOwner();
    await query(owner.url, 'create table kept (n integer); insert into kept values (1)');
    owner.child.kill('SIGKILL');
    const next = await startEmbedded({ folder });
    expect(await query(next.url, 'select n from kept')).toEqual([{ n: 1 }]);
    await next.stop();
  });

  it('recovers when the server itself was killed', async () => {
    const owner = await startOwner();
    await query(owner.url, 'create table kept (n integer); insert into kept values (1)');
    const pid = await serverPid();
    process.kill(pid, 'SIGKILL');
    owner.child.kill('SIGKILL');
    const next = await startEmbedded({ folder });
    expect(await query(next.url, 'select n from kept')).toEqual([{ n: 1 }]);
    await next.stop();
  });

  it('refuses a folder that another rosterpost uses, and leaves that one alone', async () => {
    const owner = await startOwner();
    await expect(startEmbedded({ folder })).rejects.toThrow(
      `in use by another rosterpost (process ${owner.child.pid})`,
    );
    expect(await query(owner.url, 'select 1 as n')).toEqual([{ n: 1 }]);
    owner.child.stdin.end();
    expect((await once(owner.child, 'exit'))[0]).toBe(0);
  });

  it('never touches a server that it did not start', async () => {
    await (await startEmbedded({ folder })).stop();
    const { postgres } = await findBinaries();
    const account = await findAccount();
    const cluster = path.join(folder, 'postgres');
    const foreign = spawn(
      postgres,
      [
        '-D',
        cluster,
        '-p',
        '5999',
        '-c',
        'listen_addresses=',
        '-c',
        `unix_socket_directories=${cluster}`,
      ],
      {
        ...(account && { uid: account.uid, gid: account.gid }),
        cwd: cluster,
        stdio: 'ignore',
      },
    );
    await until(
      'the foreign server to run',
      async () => (await serverPid().catch(() => 0)) === foreign.pid,
    );
    await expect(startEmbedded({ folder, patienceMs: 200 })).rejects.toThrow(
      'that this program did not start',
    );
    expect(foreign.exitCode).toBe(null);
    foreign.kill('SIGINT');
    await once(foreign, 'exit');
    await (await startEmbedded({ folder })).stop();
  });

  it.runIf(isRoot)('names the closed folder when root has put the data below one', async () => {
    const closed = path.join(folder, 'closed');
    await mkdir(closed, { mode: 0o700 });
    await expect(startEmbedded({ folder: path.join(closed, 'data') })).rejects.toThrow(
      `The folder ${closed} is closed (mode 0700)`,
    );
  });

  it.runIf(isRoot)('names the closed folder when the program lies below one', async () => {
    const { requireReachable } = await import('../../src/database/embedded-binaries.ts');
    const closed = path.join(folder, 'home');
    await mkdir(path.join(closed, 'clone'), { recursive: true });
    await chmod(closed, 0o700);
    await expect(
      requireReachable(path.join(closed, 'clone/postgres'), await findAccount()),
    ).rejects.toThrow(closed);
  });

  it.runIf(isRoot)('runs without being root', async () => {
    const uid = Number(execFileSync('id', ['-u', 'nobody']));
    const gid = Number(execFileSync('id', ['-g', 'nobody']));
    await chown(folder, uid, gid);
    const owner = await startOwner({ uid, gid });
    expect(await query(owner.url, 'select 1 as n')).toEqual([{ n: 1 }]);
    owner.child.stdin.end();
    expect((await once(owner.child, 'exit'))[0]).toBe(0);
  });
});
