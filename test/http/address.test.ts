// One reading of email addresses: what is one, and which spellings are the same mailbox.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { envelopeAddress, parseAddress, type Address } from '../../src/address.ts';

const parsed = (text: string): Address => {
  const address = parseAddress(text);
  if (typeof address === 'string') throw new Error(`${JSON.stringify(text)}: ${address}`);
  return address;
};

describe('an address', () => {
  it.each([
    ['a@b.example', 'a@b.example'],
    ['Ada.Lovelace@School.EXAMPLE', 'ada.lovelace@school.example'],
    ['  a@b.example  ', 'a@b.example'],
    ['\u00a0a@b.example\ufeff', 'a@b.example'],
    ["o'hara+news=x@b.example", "o'hara+news=x@b.example"],
    ["!#$%&'*+-/=?^_`{|}~@b.example", "!#$%&'*+-/=?^_`{|}~@b.example"],
    ['1@2.example', '1@2.example'],
    ['a@b-c.d-e.example', 'a@b-c.d-e.example'],
    ['a@1.2.3.example', 'a@1.2.3.example'],
    ['a@xn--mnchen-3ya.example', 'a@xn--mnchen-3ya.example'],
    ['a@münchen.example', 'a@xn--mnchen-3ya.example'],
    ['a@MÜNCHEN.example', 'a@xn--mnchen-3ya.example'],
    ['a@mu\u0308nchen.example', 'a@xn--mnchen-3ya.example'],
    ['a@例え.テスト', 'a@xn--r8jz45g.xn--zckzah'],
    ['a@例え。テスト', 'a@xn--r8jz45g.xn--zckzah'],
    ['a@ｂ.example', 'a@b.example'],
    ['a@страна.рф', 'a@xn--80aa2bkeg.xn--p1ai'],
    ['josé@b.example', 'josé@b.example'],
    ['jose\u0301@b.example', 'josé@b.example'],
    ['JOSÉ@b.example', 'josé@b.example'],
    ['\u03aa\u0301@b.example', '\u0390@b.example'], // composed only in lower case
    ['用户@b.example', '用户@b.example'],
    ['δοκιμή@παράδειγμα.δοκιμή', 'δοκιμή@xn--hxajbheg2az3al.xn--jxalpdlp'],
    ['संपर्क@डाटामेल.भारत', 'संपर्क@xn--c2bd4bq1db8d.xn--h2brj9c'],
    ['🎓@b.example', '🎓@b.example'],
    [`${'a'.repeat(64)}@b.example`, `${'a'.repeat(64)}@b.example`],
    [`${'é'.repeat(32)}@b.example`, `${'é'.repeat(32)}@b.example`],
    [`a@${'b'.repeat(63)}.example`, `a@${'b'.repeat(63)}.example`],
    [`a@${'b.'.repeat(122)}example`, `a@${'b.'.repeat(122)}example`],
  ])('is %j', (text, email) => {
    expect(parsed(text).email).toBe(email);
  });

  it('keeps the spelling that was given, for the mail itself', () => {
    expect(parsed(' Ada.Lovelace@MÜNCHEN.example ').given).toBe('Ada.Lovelace@MÜNCHEN.example');
    expect(envelopeAddress('Ada.Lovelace@MÜNCHEN.example')).toBe(
      'Ada.Lovelace@xn--mnchen-3ya.example',
    );
  });
});

describe('no address', () => {
  it.each([
    ['', 'must be an email address'],
    ['   ', 'must be an email address'],
    ['a', 'must be an email address'],
    ['@', 'must be an email address'],
    ['@b.example', 'must be an email address'],
    ['a@', 'domain'],
    ['a@b', 'domain'],
    ['a@.', 'domain'],
    ['a@.example', 'domain'],
    ['a@b.', 'domain'],
    ['a@b.example.', 'domain'],
    ['a@b..example', 'domain'],
    ['a@-b.example', 'domain'],
    ['a@b-.example', 'domain'],
    ['a@b_c.example', 'domain'],
    ['a@b c.example', 'domain'],
    ['a@b%2ec.example', 'domain'],
    ['a@b/c.example', 'domain'],
    ['a@b.example:25', 'domain'],
    ['a@b.example?x=y', 'domain'],
    ['a@b.example#x', 'domain'],
    ['a@b.example>', 'domain'],
    ['a@[127.0.0.1]', 'domain'],
    ['a@[IPv6:::1]', 'domain'],
    ['a@127.0.0.1', 'domain'],
    ['a@0x7f.1', 'domain'],
    ['a@2130706433', 'domain'],
    ['a@b.123', 'domain'],
    ['a@xn--.example', 'domain'],
    ['a@xn--a-ä.example', 'domain'],
    [`a@${'b'.repeat(64)}.example`, 'domain'],
    [`a@${'ü'.repeat(60)}.example`, 'domain'],
    [`a@${'b.'.repeat(130)}example`, 'domain'],
    ['a@@b.example', 'before the @'],
    ['a@b@c.example', 'before the @'],
    ['a b@c.example', 'before the @'],
    ['.a@b.example', 'before the @'],
    ['a.@b.example', 'before the @'],
    ['a..b@c.example', 'before the @'],
    ['"a"@b.example', 'before the @'],
    ['"a b"@c.example', 'before the @'],
    ['a\\@b@c.example', 'before the @'],
    ['a(comment)@b.example', 'before the @'],
    ['<a@b.example', 'before the @'],
    ['Ada <a@b.example>', 'before the @'],
    ['mailto:a@b.example', 'before the @'],
    ['a,b@c.example', 'before the @'],
    ['a@b.example,c@d.example', 'before the @'],
    ['a;b@c.example', 'before the @'],
    ['a\u00a0b@c.example', 'before the @'],
    ['a\u200bb@c.example', 'before the @'],
    ['a\u202eb@c.example', 'before the @'],
    ['\ufeff\u200ba@b.example', 'before the @'],
    ['a\ud800@b.example', 'before the @'],
    ['a\u0000@b.example', 'line breaks'],
    ['a@b.example\r\n', 'line breaks'],
    ['a@b.example\n', 'line breaks'],
    ['\ta@b.example', 'line breaks'],
    ['a\r\nBcc: x@b.example', 'line breaks'],
    ['a@b.example\u2028', 'line breaks'],
    ['a\u0085@b.example', 'line breaks'],
    [`${'a'.repeat(65)}@b.example`, '64 bytes'],
    [`${'é'.repeat(33)}@b.example`, '64 bytes'],
    [`${'\u0130'.repeat(32)}@b.example`, '64 bytes'], // İ is longer in lower case
    [`a@${'b.'.repeat(123)}example`, '254 bytes'],
  ])('is %j', (text, why) => {
    expect(parseAddress(text)).toEqual(expect.stringContaining(why));
  });
});

describe('every address', () => {
  const local = fc.oneof(
    fc.stringMatching(/^[A-Za-z0-9+_-]{1,20}(\.[A-Za-z0-9]{1,10}){0,2}$/),
    fc.string({ unit: 'grapheme', minLength: 1, maxLength: 15 }),
  );
  const domain = fc.oneof(
    fc.domain(),
    fc.stringMatching(/^[a-zA-ZäöüßÄÖÜéñдж漢字]{1,20}\.(example|Example|рф)$/),
  );
  const text = fc.oneof(
    fc.emailAddress(),
    fc.tuple(local, domain).map(([before, after]) => `${before}@${after}`),
    fc.string(),
    fc.string({ unit: 'binary' }),
  );

  it('is read the same again once it is normalised, and in its envelope form', () => {
    let addresses = 0;
    fc.assert(
      fc.property(text, (given) => {
        const address = parseAddress(given);
        if (typeof address === 'string') return;
        addresses += 1;
        expect(parsed(address.email).email).toBe(address.email);
        expect(parsed(address.given)).toEqual(address);
        expect(parsed(envelopeAddress(address.given)).email).toBe(address.email);
        expect(parsed(` ${given} `)).toEqual(address);
      }),
      { numRuns: 2_000 },
    );
    expect(addresses).toBeGreaterThan(200);
  });

  it('is one line without spaces and angle brackets, with one domain, within the limits', () => {
    fc.assert(
      fc.property(text, (given) => {
        const address = parseAddress(given);
        if (typeof address === 'string') return;
        for (const one of [address.email, address.given, envelopeAddress(address.given)]) {
          expect(one).not.toMatch(/[\s\p{Cc}\p{Cf}\p{Cs}<>,;:"()[\]\\]/u);
          expect(one.split('@')).toHaveLength(2);
        }
        expect(Buffer.byteLength(address.email)).toBeLessThanOrEqual(254);
        expect(address.email.split('@')[1]).toMatch(/^[a-z0-9.-]+$/);
      }),
      { numRuns: 2_000 },
    );
  });

  it('is the same in capitals', () => {
    fc.assert(
      fc.property(fc.emailAddress(), (given) => {
        const address = parseAddress(given);
        if (typeof address === 'string') return;
        expect(parsed(given.toUpperCase()).email).toBe(address.email);
      }),
    );
  });
});
