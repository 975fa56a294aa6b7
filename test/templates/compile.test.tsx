// A compiled template gives what a full render gives, byte for byte, whatever the template does with
// personal values and whatever these are; where it cannot, it says so.
import {
  Component,
  createContext,
  forwardRef,
  lazy,
  memo,
  useContext,
  useId,
  useState,
  type ReactNode,
} from 'react';
import { Button, Heading, Img, Link, Markdown, Preview, Text } from '@react-email/components';
import fc from 'fast-check';
import * as v from 'valibot';
import { beforeAll, describe, expect, it } from 'vitest';
import type { JsonObject } from '../../src/database/schema.ts';
import { fill } from '../../src/smtp/pattern.ts';
import { CompiledTemplate } from '../../src/templates/compile.ts';
import {
  defineTemplate,
  type ContextSchema,
  type Links,
  type TemplateDefinition,
} from '../../src/templates/define.ts';
import { loadTemplates, type Contexts, type Templates } from '../../src/templates/registry.ts';
import { renderTemplate } from '../../src/templates/render.ts';
import { hostileText } from '../support/hostile-text.ts';

interface Person {
  a: string;
  b: string;
  n: number;
  list: string[];
  flag?: boolean;
}

const person: fc.Arbitrary<Person> = fc.record(
  {
    a: hostileText,
    b: fc.oneof(hostileText, fc.webUrl({ withQueryParameters: true })),
    n: fc.oneof(fc.integer({ min: -2, max: 12 }), fc.double({ noNaN: true }), fc.constant(-0)),
    list: fc.array(hostileText, { maxLength: 4 }),
    flag: fc.boolean(),
  },
  { requiredKeys: ['a', 'b', 'n', 'list'] },
);

const RUNS = 20;
const anything = v.record(v.string(), v.unknown());

function templateOf(body: (person: Person, links: Links) => ReactNode): TemplateDefinition {
  return defineTemplate<ContextSchema, ContextSchema>({
    category: 'transactional',
    subject: ({ recipient }) => `For ${String(recipient.a)}`,
    sharedSchema: anything,
    recipientSchema: anything,
    sample: { shared: {}, recipient: {} },
    component: ({ recipient, links }) => (
      <html>
        <head>
          <title>Title</title>
        </head>
        <body>{body(recipient as unknown as Person, links)}</body>
      </html>
    ),
  });
}

const contextsOf = (recipient: object): Contexts => ({
  shared: {},
  recipient: recipient as JsonObject,
  links: { unsubscribe: 'https://mail.example/u/1' },
});

type Path = 'compiled' | 'full';

/** How each was made; throws where a compiled one differs from the full render. */
async function comparePaths(
  template: TemplateDefinition,
  all: readonly Contexts[],
): Promise<Path[]> {
  const compiled = new CompiledTemplate(template);
  const paths: Path[] = [];
  for (const contexts of all) {
    const filled = await compiled.fill(contexts);
    paths.push(filled ? 'compiled' : 'full');
    if (!filled) continue;
    const { skeleton, values, subject } = filled;
    const own = structuredClone(contexts);
    expect({
      subject,
      html: fill(skeleton.html, values),
      text: fill(skeleton.text, values),
    }).toEqual(await renderTemplate(template, own));
  }
  return paths;
}

const tame: Person[] = ['Ada', 'Bob & Co', '<Zoë>', 'מרים', '👩‍👧', '"x"'].map((a, at) => ({
  a,
  b: `https://a.example/?n=${at}&m=1`,
  n: at + 1,
  list: ['one', `two ${at}`],
}));

/** Both paths of people of whom nothing is known; then the ways taken by some that need no caution. */
async function comparePathsOf(body: (person: Person, links: Links) => ReactNode): Promise<Path[]> {
  const template = templateOf(body);
  await fc.assert(
    fc.asyncProperty(fc.array(person, { minLength: 2, maxLength: 6 }), async (people) => {
      await comparePaths(template, people.map(contextsOf));
    }),
    { numRuns: RUNS },
  );
  return comparePaths(template, tame.map(contextsOf));
}

const Theme = createContext('none');
const Themed = () => <b>{useContext(Theme)}</b>;
const Identified = ({ name }: { name: string }) => <p id={useId()}>{name}</p>;
const Memoised = memo(({ name }: { name: string }) => <p>{name}</p>);
const Forwarded = forwardRef<HTMLParagraphElement, { name: string }>(({ name }, ref) => (
  <p ref={ref}>{name}</p>
));
class Classed extends Component<{ name: string }> {
  override render() {
    return <p>{this.props.name}</p>;
  }
}
const Later = async ({ name }: { name: string }) => <p>{await Promise.resolve(name)}</p>;
const Lazy = lazy(async () => ({ default: ({ name }: { name: string }) => <p>{name}</p> }));
const Picky = ({ name }: { name: string }) => {
  if (name.includes('&')) throw new Error('no ampersands');
  return <p>{name}</p>;
};
const Catching = ({ name }: { name: string }) => {
  let shown = 'Ada';
  try {
    [shown] = useState(name);
  } catch {}
  return <p>{shown}</p>;
};
class Price {
  readonly #cents: number;
  constructor(cents: number) {
    this.#cents = cents;
  }
  toString() {
    return `${this.#cents} cents`;
  }
}
const Words = ({ words }: { words: string[] }) => words;

describe('what a template does with personal values', () => {
  const compiled: Record<string, (person: Person, links: Links) => ReactNode> = {
    'puts them into text': ({ a, n }) => (
      <p>
        Hi {a}, you have {n} points{a}
        {n}
      </p>
    ),
    'puts them into a link': ({ a, b }) => <a href={b}>{a}</a>,
    'puts them beside text and nothing': ({ a, b }) => (
      <p>
        {a}
        {b}
        {''}
        {null} and{' '}
        {[a, b, [a]].map((one, key) => (
          <i key={key}>{one}</i>
        ))}
      </p>
    ),
    'compares them': ({ a, n }) => (
      <p>
        {a === 'Ada' ? <b>The first!</b> : 'Hello'} {n > 3 && <i>many</i>}
      </p>
    ),
    'looks them up': ({ a }) => <p>{{ Ada: 'Countess' }[a] ?? 'Reader'}</p>,
    'counts and changes them': ({ a, n }) => (
      <p>
        {a.toUpperCase()} {a.length} {n * 2} {n.toFixed(1)} {Array.from(a).reverse().join('')}
      </p>
    ),
    'takes them apart': ({ a }) => a.split(/\s/u).map((word, key) => <p key={key}>{word}</p>),
    'repeats a row for each': ({ list }) => (
      <table>
        <tbody>
          {list.map((one, key) => (
            <tr key={key}>
              <td>{one}</td>
            </tr>
          ))}
        </tbody>
      </table>
    ),
    'makes lists of them': ({ a, list }) => (
      <ul>
        {list.map((one, key) => (
          <li key={key}>
            {one} {a}
          </li>
        ))}
      </ul>
    ),
    'uses components of React Email': ({ a, b }) => (
      <>
        <Heading>{a}</Heading>
        <Text>{a}</Text>
        <Button href={b}>{a}</Button>
        <Link href={`mailto:${b}`}>{a}</Link>
      </>
    ),
    'memoises and forwards': ({ a }) => (
      <>
        <Memoised name={a} />
        <Forwarded name={a} />
      </>
    ),
    'returns words': ({ list, a }) => (
      <p>
        <Words words={list} />
        {a}
        <Words words={[a, a]} />
      </p>
    ),
    'shows a way out': (_, { unsubscribe }) => <a href={unsubscribe}>Unsubscribe</a>,
    'puts an image into a link': ({ a, b }) => (
      <a href={b}>
        <img src="https://a.example/logo.png" alt="" />
        <br />
        {a}
      </a>
    ),
  };
  for (const [name, body] of Object.entries(compiled)) {
    it(`${name}: is compiled`, async () => {
      expect(new Set(await comparePathsOf(body))).toEqual(new Set(['compiled']));
    });
  }

  const full: Record<string, (person: Person, links: Links) => ReactNode> = {
    'uses a hook': ({ a }) => <Identified name={a} />,
    'uses a context': ({ a }) => (
      <Theme.Provider value={a}>
        <Themed />
      </Theme.Provider>
    ),
    'has a class': ({ a }) => <Classed name={a} />,
    'waits for something': ({ a }) => <Later name={a} />,
    'loads a component later': ({ a }) => <Lazy name={a} />,
    'gives a set of words': ({ list }) => <p>{new Set(list)}</p>,
  };
  for (const [name, body] of Object.entries(full)) {
    it(`${name}: is rendered in full`, async () => {
      expect(new Set(await comparePathsOf(body))).toEqual(new Set(['full']));
    });
  }

  const either: Record<string, (person: Person, links: Links) => ReactNode> = {
    'says the target of a link where it likes': ({ a, b }) => (
      <a href={b}>{a.length > 4 ? b : a}</a>
    ),
    'leaves words out of the text part of a link': ({ a, b }) => (
      <a href={b}>
        {b}
        <span data-skip-in-text="true">{a}</span>
      </a>
    ),
    'puts them into the title': ({ a }) => <title>{a}</title>,
    'puts them into a style': ({ a, n }) => <p style={{ color: a, margin: n }}>x</p>,
    'puts them into a style sheet': ({ a }) => <style>{`.x { content: "${a}" }`}</style>,
    'puts them into attributes': ({ a, n, flag }) => (
      <p className={a} id={a} lang={a} title={a} dir={a} tabIndex={n} hidden={flag} data-x={a}>
        x
      </p>
    ),
    'puts them into an image': ({ a, b }) => <img src={b} alt={a} width={3} />,
    'gives React Email their image': ({ a, b }) => <Img src={b} alt={a} />,
    'gives HTML of them': ({ a }) => <p dangerouslySetInnerHTML={{ __html: a }} />,
    'gives a link HTML of them': ({ a, b }) => (
      <a href={b} dangerouslySetInnerHTML={{ __html: a }} />
    ),
    'keeps their blanks': ({ a }) => <pre>{a}</pre>,
    'puts them into a form': ({ a }) => (
      <select defaultValue={a}>
        <option>{a}</option>
      </select>
    ),
    'lays them out in columns': ({ a, list }) => (
      <table data-text-format="dataTable">
        <tbody>
          <tr>
            <td>{a}</td>
            <td>{list[0]}</td>
          </tr>
        </tbody>
      </table>
    ),
    'says the target of a link': ({ b }) => <a href={b}>{b}</a>,
    'says an address': ({ a }) => <a href={`mailto:${a}`}>{a}</a>,
    'links blocks': ({ a, b }) => (
      <a href={b}>
        <p>{a}</p>
        <ul>
          <li>{b}</li>
        </ul>
      </a>
    ),
    'cuts a preview': ({ a }) => <Preview>{a}</Preview>,
    'reads Markdown': ({ a }) => <Markdown>{a}</Markdown>,
    'chooses an element': ({ n, a }) => {
      const Tag = n > 3 ? 'h1' : 'blockquote';
      return <Tag>{a}</Tag>;
    },
    'writes objects as attributes': ({ a, n }) => (
      <p {...{ 'data-when': new Date(n * 1e9), 'data-words': [a, null], 'data-url': new Price(n) }}>
        x
      </p>
    ),
    'links objects and numbers': ({ a, n }) => (
      <>
        <a {...{ href: new URL(`https://a.example/${n}`) as never }}>{`https://a.example/${n}`}</a>
        <a {...{ href: n as never }}>{n}</a>
        <a {...{ HREF: a }}>{a}</a>
        <a href="javascript:alert(1)">{a}</a>
      </>
    ),
    'changes its context': (person) => {
      const first = person.list.shift();
      person.list.reverse();
      return (
        <p>
          {first} and {person.list.join()} {person.a}
        </p>
      );
    },
    'makes elements of words': ({ list }) => (
      <pre>{list.map((one) => (one.length > 3 ? one : <b key={one} id={one} />))}</pre>
    ),
    'puts words between the items of a list': ({ a, list }) => (
      <ul>
        {a}
        <li>{list}</li>
        {a}
      </ul>
    ),
    'catches what a hook throws': ({ a }) => <Catching name={a} />,
    'opens a raw element': ({ a }) => (
      <div>
        <div dangerouslySetInnerHTML={{ __html: '<textarea>' }} />
        {a}
      </div>
    ),
    'divides by nothing': ({ a, n }) => <p style={{ width: n / 0 - n / 0, margin: n / 0 }}>{a}</p>,
    throws: ({ a }) => <Picky name={a} />,
  };
  for (const [name, body] of Object.entries(either)) {
    it(`${name}: makes no difference`, async () => {
      expect(await comparePathsOf(body)).toHaveLength(tame.length);
    });
  }
});

describe('a compiled template', () => {
  it('takes the full path for values that would do more than stand in their place', async () => {
    const template = templateOf(({ a, b }) => (
      <p>
        {a}
        <a href={b}>Go</a>
      </p>
    ));
    const values = [
      { a: 'x', b: 'https://a.example' },
      { a: 'y', b: 'https://b.example' },
      { a: ' x', b: 'https://a.example' },
      { a: 'x\ny', b: 'https://a.example' },
      { a: 'x', b: 'javascript:alert(1)' },
      { a: 'x', b: 'Go' },
      { a: 'z', b: 'https://c.example' },
    ];
    expect(await comparePaths(template, values.map(contextsOf))).toEqual(
      'compiled compiled full full full full compiled'.split(' '),
    );
  });

  // The text part leaves a target out that the words say, so it matters also where it is rare.
  const words: Record<string, [(person: Person) => ReactNode, string]> = {
    'a link': [({ a, b }) => <a href={b}>{a}</a>, 'compiled compiled full full compiled'],
    'a link with words in parts': [
      ({ a, b }) => (
        <a href={b}>
          <b>{a.slice(0, 3)}</b>
          {a.slice(3)}
        </a>
      ),
      'compiled compiled full full compiled',
    ],
    'a link with words that are not in the text part': [
      ({ a, b }) => (
        <a href={b}>
          {a}
          <span data-skip-in-text="true">!</span>
        </a>
      ),
      'compiled full full full full',
    ],
    'a link with more than words': [
      ({ a, b }) => (
        <a href={b}>
          <ul>
            <li>{a}</li>
          </ul>
        </a>
      ),
      'compiled full full full full',
    ],
    'a link with HTML of its own': [
      ({ a, b }) => (
        <a href={b}>
          {a}
          <span dangerouslySetInnerHTML={{ __html: '<i></i>' }} />
        </a>
      ),
      'compiled full full full full',
    ],
  };
  for (const [name, [body, paths]] of Object.entries(words)) {
    it(`knows whether the words of ${name} are its target`, async () => {
      const people = [
        { a: 'Ada here', b: 'https://a.example' },
        { a: 'Bob here', b: 'https://b.example' },
        { a: 'https://c.example', b: 'https://c.example' },
        { a: 'd@d.example', b: 'mailto:d@d.example' },
        { a: 'Eve here', b: 'https://e.example' },
      ];
      expect(await comparePaths(templateOf(body), people.map(contextsOf))).toEqual(
        paths.split(' '),
      );
    });
  }

  it('takes the full path for a template that changes its context, which it finds as it was', async () => {
    const template = templateOf((person) => {
      const first = person.list.shift();
      return (
        <p>
          {person.a} {first}, then {person.list.length}
        </p>
      );
    });
    const all = tame.map(contextsOf);
    const before = structuredClone(all);
    expect(new Set(await comparePaths(template, all))).toEqual(new Set(['full']));
    expect(all).toEqual(before);
  });

  it('is not stopped by a member whose mail fails', async () => {
    const template = templateOf(({ a, n }) => <p {...(n === 3 && { style: 'x' as never })}>{a}</p>);
    const compiled = new CompiledTemplate(template);
    const all = await Promise.all(tame.map((one) => compiled.fill(contextsOf(one))));
    expect(all.map((one) => one !== undefined)).toEqual([true, true, false, true, true, true]);
    await expect(renderTemplate(template, contextsOf(tame[2]!))).rejects.toThrow('style');
  });

  it('is filled in while others are compiled', async () => {
    const compiled = new CompiledTemplate(
      templateOf(({ a, n }) => <p>{n % 2 ? a : <b>{a}</b>}</p>),
    );
    const filled = await Promise.all(tame.map((one) => compiled.fill(contextsOf(one))));
    expect(new Set(filled.map((one) => one!.skeleton)).size).toBeLessThanOrEqual(4);
    for (const [at, one] of filled.entries()) {
      const { html } = await renderTemplate(
        templateOf(({ a, n }) => <p>{n % 2 ? a : <b>{a}</b>}</p>),
        contextsOf(tame[at]!),
      );
      expect(fill(one!.skeleton.html, one!.values)).toBe(html);
    }
  });

  it('gives up structures beyond a number of them, not those it knows', async () => {
    const template = templateOf(({ n }) => Array.from({ length: n }, (_, key) => <hr key={key} />));
    const people = Array.from({ length: 40 }, (_, n) => ({ ...tame[0]!, n }));
    const paths = await comparePaths(template, [...people, people[3]!].map(contextsOf));
    expect(paths.slice(0, 32)).toEqual(Array(32).fill('compiled'));
    expect(paths.slice(32, 40)).toEqual(Array(8).fill('full'));
    expect(paths[40]).toBe('compiled');
  });
});

describe('the templates of emails/', () => {
  let templates: Templates;
  beforeAll(async () => {
    templates = await loadTemplates();
  });

  it('give the same on both paths, and are compiled where values are tame', async () => {
    for (const template of templates.values()) {
      const { sample } = template;
      const texts = fc.array(
        fc.record({ name: hostileText, points: fc.double({ noNaN: true }), key: hostileText }),
        { minLength: 3, maxLength: 6 },
      );
      await fc.assert(
        fc.asyncProperty(texts, async (people) => {
          const all = people.map(({ name, points, key }) => ({
            shared: sample.shared as JsonObject,
            recipient: personOf(template.key, sample.recipient as JsonObject, name, points, key),
            links: {
              unsubscribe: `https://mail.example/u/${encodeURIComponent(name.toWellFormed())}`,
            },
          }));
          await comparePaths(template, all);
        }),
        { numRuns: RUNS },
      );
      const paths = await comparePaths(
        template,
        tame.map(({ a, b }) => ({
          shared: sample.shared as JsonObject,
          recipient: { ...(sample.recipient as JsonObject), name: a },
          links: { unsubscribe: b, confirm: b },
        })),
      );
      expect([template.key, ...new Set(paths)]).toEqual([template.key, 'compiled']);
    }
  });

  function personOf(
    key: string,
    sample: JsonObject,
    name: string,
    points: number,
    field: string,
  ): JsonObject {
    if (key === 'default_template') return { ...sample, name, [field]: [name, points, { name }] };
    if (key !== 'homework-score-published') return { ...sample, name };
    const details = [{ label: name, points }, ...(sample.details as JsonObject[])];
    return { ...sample, name, score: points, details: details.slice(0, Math.abs(points) % 5) };
  }
});
