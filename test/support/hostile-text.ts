// Values that break careless templates, for property tests: markup, quotes, entities, other scripts and
// directions, emoji, blanks and line breaks in awkward places, look-alikes of everything used internally.
import fc from 'fast-check';

const AWKWARD = [
  [
    '',
    ' ',
    '  ',
    ' x',
    'x ',
    'a  b',
    '\t',
    'a\nb',
    'a \nb',
    '\r\n',
    '\u2028',
    '\u0001',
    '\u00a0',
    '\u200b',
  ],
  ['<b>', '</td>', '<!--', '-->', '<script>alert(1)</script>', '<!DOCTYPE html>', '<link rel=x>'],
  [
    '"',
    "'",
    '&',
    '&amp;',
    '&lt;b&gt;',
    '&#x27;',
    '&nbsp;',
    '&notit;',
    ']]>',
    '{{name}}',
    '${name}',
  ],
  ['=', '=3D', '=\r\n', '=?utf-8?Q?x?=', '.', '..', '.\r\n', 'From me', '--=_boundary', '%s'],
  [
    'مرحبا',
    'שלום',
    '\u202eabc\u202c',
    '你好',
    'Zoë',
    'e\u0301',
    '👩‍👩‍👧‍👦',
    '🇺🇦',
    '\ud800',
    '\ufeff',
    '\ufffd',
  ],
  [
    't0123456789abcdeft0t',
    'https://h0123456789abcdefh0h',
    '$1',
    '$&',
    '\\',
    '0',
    '-0',
    'null',
    'undefined',
  ],
  ['https://a.example/?b=1&c=2', 'mailto:a@b.example', 'javascript:alert(1)', 'Hello', 'Hi'],
].flat();

/** A text of any kind; lone surrogates and control characters are among them. */
export const hostileText: fc.Arbitrary<string> = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(...AWKWARD) },
  {
    weight: 3,
    arbitrary: fc.array(fc.constantFrom(...AWKWARD), { maxLength: 4 }).map((all) => all.join('')),
  },
  { weight: 3, arbitrary: fc.string({ unit: 'grapheme', maxLength: 30 }) },
  { weight: 2, arbitrary: fc.string({ unit: 'binary', maxLength: 30 }) },
  {
    weight: 1,
    arbitrary: fc.constantFrom('x', '=', 'é', ' ', '&', '👍').map((one) => one.repeat(3_000)),
  },
);
