// The field types of bodies and templates: what each takes, and what it says about the rest.
import fc from 'fast-check';
import * as v from 'valibot';
import { describe, expect, it } from 'vitest';
import {
  address,
  isKey,
  isLink,
  isUuid,
  issuesToErrors,
  jsonObject,
  key,
  line,
  link,
  moment,
  paragraphs,
} from '../../src/fields.ts';

/** What is wrong with the value: nothing where it is taken. */
const wrongs = (schema: v.GenericSchema, value: unknown): string[] => {
  const result = v.safeParse(schema, value);
  return result.success ? [] : issuesToErrors(result.issues).map((error) => error.message);
};

const CONTROLS = ['\u0000', '\u0001', '\u001f', '\u007f', '\u0080', '\u0085', '\u009f'];
const BREAKS = ['\n', '\r', '\r\n', '\u2028', '\u2029'];

describe('line()', () => {
  it.each(['a', ' ', 'ü – 漢字 🎓', 'x'.repeat(500), '<b>&"\'', '\u00a0', 'עברית', '\u{10ffff}'])(
    'takes %j',
    (text) => expect(wrongs(line(), text)).toEqual([]),
  );

  it.each([...CONTROLS, ...BREAKS, '\t', '\u000b', '\u000c'])('refuses %j in a text', (bad) => {
    for (const text of [bad, `a${bad}`, `${bad}b`, `a${bad}b`]) {
      expect(wrongs(line(), text)).toEqual(['must be one line without control characters']);
    }
  });

  it('has a length from 1 to its limit', () => {
    expect(wrongs(line(), '')).toEqual(['must not be empty']);
    expect(wrongs(line(), 'x'.repeat(501))).toEqual(['must be at most 500 characters']);
    expect(wrongs(line(7), 'x'.repeat(8))).toEqual(['must be at most 7 characters']);
    expect(wrongs(line(7), 'x'.repeat(7))).toEqual([]);
  });

  it.each([1, true, null, [], {}, ['a']])('refuses %j', (value) => {
    expect(wrongs(line(), value)).toEqual(['must be a string']);
  });
});

describe('paragraphs()', () => {
  it('takes line breaks and tabs, and no other control character', () => {
    for (const text of ['a\n\nb', 'a\r\nb', 'a\tb', 'x'.repeat(100_000)]) {
      expect(wrongs(paragraphs(), text)).toEqual([]);
    }
    for (const bad of CONTROLS) {
      expect(wrongs(paragraphs(), `a${bad}b`), JSON.stringify(bad)).toEqual([
        'must not contain control characters',
      ]);
    }
    expect(wrongs(paragraphs(), '')).toEqual(['must not be empty']);
    expect(wrongs(paragraphs(), 'x'.repeat(100_001))).toEqual([
      'must be at most 100000 characters',
    ]);
  });
});

describe('key()', () => {
  const KEY = 'must be 1 to 255 characters without "/" and control characters';

  it.each([
    'ml-zoomcamp-2026:@e:@homework:homework-1',
    'a',
    ' ',
    '...',
    '.a',
    '-',
    '%2F',
    '\\',
    'ü 漢字 🎓',
    '__proto__',
    'x'.repeat(255),
    'ü'.repeat(255),
    '🎓'.repeat(255),
  ])('takes %j', (text) => expect(wrongs(key(), text)).toEqual([]));

  it.each([
    '',
    '.',
    '..',
    '/',
    'a/b',
    'x'.repeat(256),
    '🎓'.repeat(256),
    `${'🎓'.repeat(255)}x`,
    ...CONTROLS,
    ...BREAKS,
    '\t',
  ])('refuses %j', (text) => expect(wrongs(key(), text)).toEqual([KEY]));

  it('takes what can stand in a path as one segment, and comes back from it', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', minLength: 1, maxLength: 300 }), (text) => {
        if (!isKey(text)) return;
        const url = new URL(`http://x/api/${encodeURIComponent(text)}`);
        expect(url.pathname.split('/')).toHaveLength(3);
        expect(decodeURIComponent(url.pathname.split('/')[2]!)).toBe(text);
      }),
    );
  });
});

describe('link()', () => {
  it.each([
    'https://courses.example.org/a?b=c&d=%20#e',
    'http://x.example',
    'HTTPS://X.example/',
    'https://bücher.example/ü',
    'https://user@x.example:8080/',
    'https://[2001:db8::1]/',
    'mailto:a@b.example?subject=x',
  ])('takes %j', (text) => {
    expect(wrongs(link(), text)).toEqual([]);
    expect(isLink(text)).toBe(true);
  });

  it.each([
    '',
    'x.example',
    '//x.example',
    '/path',
    'https:x.example',
    'https://',
    'http://',
    'javascript:alert(1)',
    'JaVaScRiPt:alert(1)',
    ' javascript:alert(1)',
    'java\nscript:alert(1)',
    'data:text/html,x',
    'vbscript:x',
    'file:///etc/passwd',
    'ftp://x.example',
    ' https://x.example',
    'https://x.example ',
    'https://x.example/a b',
    'https://x.example/\n',
    'https://x.example/"onclick="x',
    'https://x.example/<script>',
    'https://x example',
    'https://x.example:99999/',
    'https://[::1',
  ])('refuses %j', (text) => {
    expect(wrongs(link(), text)).toEqual(['must be an absolute http, https or mailto URL']);
  });

  it('has at most 2,048 characters', () => {
    const url = (length: number) => `https://x.example/${'a'.repeat(length - 18)}`;
    expect(wrongs(link(), url(2048))).toEqual([]);
    expect(wrongs(link(), url(2049))).toEqual(['must be at most 2048 characters']);
  });
});

describe('moment()', () => {
  const MOMENT = 'must be an RFC 3339 timestamp such as 2026-02-01T23:00:00Z, or a date';

  it.each([
    '2026-02-01T23:00:00Z',
    '2026-02-01T23:00:00.123456789Z',
    '2026-02-01T23:00:00+05:30',
    '2026-02-01T23:00:00-11:00',
    '2026-02-01T23:00Z',
    '2026-02-01',
    '2024-02-29',
    '2000-02-29T00:00:00Z',
    '0001-01-01',
    '9999-12-31T23:59:59Z',
  ])('takes %j', (text) => expect(wrongs(moment(), text)).toEqual([]));

  it.each([
    '',
    'tomorrow',
    '2026',
    '2026-02',
    '2026-2-1',
    '01.02.2026',
    '2026-02-30',
    '2025-02-29',
    '1900-02-29',
    '2026-13-01',
    '2026-00-10',
    '2026-04-31T00:00:00Z',
    '2026-02-01T23:00:00',
    '2026-02-01 23:00:00Z',
    '2026-02-01T24:00:01Z',
    '2026-02-01T23:60:00Z',
    '2026-02-01T23:00:61Z',
    '2026-02-01T23:00:00+25:00',
    '2026-02-01T23:00:00+0530',
    '2026-02-01T23:00:00Z ',
    '2026-02-01T23:00:00Z\n',
    '+002026-02-01T23:00:00Z',
    '1770000000',
    '２０２６-02-01',
  ])('refuses %j', (text) => expect(wrongs(moment(), text)).toEqual([MOMENT]));

  it('takes every moment JavaScript writes', () => {
    fc.assert(
      fc.property(
        fc.date({ min: new Date('0001-01-01'), max: new Date('9999-12-31'), noInvalidDate: true }),
        (date) => {
          expect(wrongs(moment(), date.toISOString())).toEqual([]);
        },
      ),
    );
  });
});

describe('the rest', () => {
  it('jsonObject() takes objects, and keeps every name', () => {
    const odd = JSON.parse('{"constructor":1,"toString":2,"__proto__":3,"":4}') as unknown;
    expect(v.parse(jsonObject(), odd)).toBe(odd);
    for (const value of [null, [], 'x', 1, true, undefined]) {
      expect(v.is(jsonObject(), value)).toBe(false);
    }
  });

  it('address() gives the address in both spellings, or says what is wrong', () => {
    expect(v.parse(address(), 'Ada@B.example')).toEqual({
      email: 'ada@b.example',
      given: 'Ada@B.example',
    });
    expect(wrongs(address(), 'ada')).toEqual(['must be an email address such as name@example.com']);
    expect(wrongs(address(), 7)).toEqual(['must be a string']);
  });

  it('isUuid() takes UUIDs of every version and nothing else', () => {
    for (const text of [
      '019af5d1-0000-7000-8000-000000000000',
      '019AF5D1-0000-7000-8000-00000000000F',
      '00000000-0000-0000-0000-000000000000',
    ]) {
      expect(isUuid(text)).toBe(true);
    }
    for (const text of ['', 'x', '019af5d1000070008000000000000000', `{${'0'.repeat(36)}}`]) {
      expect(isUuid(text)).toBe(false);
    }
  });

  it('issuesToErrors() speaks of JSON, with the path of each field', () => {
    const schema = v.strictObject({
      text: v.string(),
      flag: v.boolean(),
      count: v.number(),
      list: v.array(v.strictObject({ label: line() })),
    });
    const errors = (value: unknown, at?: string) => {
      const result = v.safeParse(schema, value);
      return result.success ? [] : issuesToErrors(result.issues, at);
    };
    expect(errors({})).toEqual(
      ['text', 'flag', 'count', 'list'].map((path) => ({ path, message: 'is required' })),
    );
    expect(errors({ text: 1, flag: 'x', count: '1', list: 7 })).toEqual([
      { path: 'text', message: 'must be a string' },
      { path: 'flag', message: 'must be true or false' },
      { path: 'count', message: 'must be a number' },
      { path: 'list', message: 'must be an array' },
    ]);
    const misfit = { text: 'a', flag: true, count: 1, list: [{ label: 'ok' }, { label: '' }] };
    expect(errors(misfit, 'shared_context')).toEqual([
      { path: 'shared_context.list.1.label', message: 'must not be empty' },
    ]);
    expect(errors({ ...misfit, list: [], extra: 1 }, 'at')).toEqual([
      { path: 'at.extra', message: 'is not a known field' },
    ]);
    expect(errors('x', 'at')).toEqual([{ path: 'at', message: 'must be an object' }]);
  });
});
