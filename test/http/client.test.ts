// /api/client/context-callback: where a client's personal contexts are fetched from, and what signs that.
import { describe, expect, it } from 'vitest';
import { useHarness } from '../support/harness.ts';
import { expectProblem } from './tools.ts';

const h = useHarness();
const PATH = '/api/client/context-callback';
const SECRET = /^whsec_[A-Za-z0-9+/]{43}=$/;
const secretOf = (bytes: number) => `whsec_${Buffer.alloc(bytes, 5).toString('base64')}`;

describe('GET', () => {
  it('has a secret from the beginning, another one for each client, and no URL', async () => {
    const { status, body } = await h.api('GET', PATH);
    expect(status).toBe(200);
    expect(body).toEqual({
      context_callback: { url: null, secret: expect.stringMatching(SECRET) },
    });
    const other = await h.newClient('other');
    const { body: others } = await other.api('GET', PATH);
    expect(others.context_callback.secret).toMatch(SECRET);
    expect(others.context_callback.secret).not.toBe(body.context_callback.secret);
  });
});

describe('PUT', () => {
  const url = 'https://provider.example/contexts?for=mail';

  it('changes what is given and leaves the rest, of this client only', async () => {
    const other = await h.newClient('other');
    const { body: before } = await other.api('GET', PATH);
    const first = await h.api('PUT', PATH, { url });
    expect(first.status).toBe(200);
    expect(first.body).toEqual({
      context_callback: { url, secret: expect.stringMatching(SECRET) },
    });
    const { secret } = first.body.context_callback;
    expect((await h.api('PUT', PATH, {})).body.context_callback).toEqual({ url, secret });
    const own = await h.api('PUT', PATH, { secret: secretOf(24) });
    expect(own.body.context_callback).toEqual({ url, secret: secretOf(24) });
    const none = await h.api('PUT', PATH, { url: null });
    expect(none.body.context_callback).toEqual({ url: null, secret: secretOf(24) });
    expect((await h.api('GET', PATH)).body).toEqual(none.body);
    expect((await other.api('GET', PATH)).body).toEqual(before);
  });

  it('makes a new random secret for null', async () => {
    const seen = new Set<string>();
    for (let time = 0; time < 3; time += 1) {
      const { body } = await h.api('PUT', PATH, { secret: null });
      expect(body.context_callback.secret).toMatch(SECRET);
      seen.add(body.context_callback.secret);
    }
    expect(seen.size).toBe(3);
  });

  it('takes secrets of 24 to 64 bytes in base64, no others', async () => {
    for (const bytes of [24, 25, 32, 64]) {
      const { body } = await h.api('PUT', PATH, { secret: secretOf(bytes) });
      expect(body.context_callback?.secret, String(bytes)).toBe(secretOf(bytes));
    }
    const { body: before } = await h.api('GET', PATH);
    for (const secret of [
      '',
      'whsec_',
      secretOf(23),
      secretOf(65),
      secretOf(32).slice(6),
      secretOf(32).toUpperCase(),
      secretOf(32).replace('=', ''),
      `${secretOf(32)}=`,
      ` ${secretOf(32)}`,
      `${secretOf(32)}\n`,
      `whsec_${Buffer.alloc(33, 255).toString('base64url')}`,
      `whsec_${'é'.repeat(40)}`,
      17,
      {},
    ]) {
      const label = JSON.stringify(secret);
      expectProblem(
        await h.api('PUT', PATH, { secret }),
        400,
        'validation_failed',
        ['secret'],
        label,
      );
    }
    expect((await h.api('GET', PATH)).body).toEqual(before);
  });

  it('refuses a URL that may not be called, and says why', async () => {
    const wrong: [unknown, RegExp][] = [
      ['', /http or https/],
      ['provider.example', /http or https/],
      ['ftp://provider.example/', /http or https/],
      [' https://provider.example/', /http or https/],
      ['https://a b.example/', /http or https/],
      ['https://me:secret@provider.example/', /user or password/],
      ['http://169.254.169.254/latest/meta-data', /public address.*link local/],
      ['http://[fd00::1]/', /public address.*unique local/],
      ['http://2852039166/', /public address/],
      ['https://1.1.1.1:8443/', /port 80 or 443, not 8443/],
      [`https://provider.example/${'a'.repeat(2048)}`, /2048 characters/],
      [17, /string/],
    ];
    for (const [given, why] of wrong) {
      const answer = await h.api('PUT', PATH, { url: given });
      expectProblem(answer, 400, 'validation_failed', ['url'], JSON.stringify(given));
      expect(answer.body.errors[0].message).toMatch(why);
      expect(JSON.stringify(answer.body)).not.toContain('secret@');
    }
    expect((await h.api('GET', PATH)).body.context_callback.url).toBeNull();
  });

  it('takes what the operator allowed, and every URL whose host has to be looked up to know', async () => {
    for (const given of [
      'http://127.0.0.1:4000/contexts',
      'http://[::1]:4000/',
      'http://localhost:4000',
      'HTTPS://Provider.Example',
      'https://bücher.example/é?a=%20',
      `https://provider.example/${'a'.repeat(2023)}`,
    ]) {
      const { status, body } = await h.api('PUT', PATH, { url: given });
      expect(status, given).toBe(200);
      expect(body.context_callback.url).toBe(given);
    }
  });
});
