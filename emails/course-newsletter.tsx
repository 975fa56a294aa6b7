// A newsletter: a title, text of several paragraphs, and at most one link.
// Marketing, so it goes only to people who agreed to it; its footer says so and shows the way out. The body is plain
// text; markup in it is shown, not interpreted.
import * as v from 'valibot';
import { defineTemplate, line, link, paragraphs } from '../src/templates/define.ts';
import { ActionButton } from './components/action.tsx';
import { Layout } from './components/layout.tsx';
import { Greeting, Isolated, Prose, Title } from './components/text.tsx';

export const template = defineTemplate({
  category: 'marketing',
  subject: ({ shared }) => shared.title,
  sharedSchema: v.strictObject({
    title: line(),
    body: paragraphs(),
    link: v.optional(link()),
  }),
  recipientSchema: v.strictObject({
    name: v.optional(line()),
  }),
  sample: {
    shared: {
      title: 'Spring courses · 春季课程',
      body: [
        'Registration for the spring courses is open. Six courses start in March, three of them for the first time:',
        'Машинное обучение на практике\n자연어 처리 입문\nΣτατιστική με παραδείγματα',
        'تبدأ جميع الدورات يوم الاثنين 2 مارس 2026، والتسجيل مجاني حتى نهاية فبراير.',
        'All of them are free and need two evenings a week. We look forward to seeing you!',
      ].join('\n\n'),
      link: 'https://courses.example.org/spring-2026',
    },
    recipient: { name: 'अनन्या शर्मा' },
  },
  component: ({ shared, recipient, links }) => (
    <Layout
      title={shared.title}
      preview={opening(shared.body)}
      footer="You receive this newsletter because you agreed to get news about our courses."
      unsubscribe={links.unsubscribe}
    >
      <Title>
        <Isolated>{shared.title}</Isolated>
      </Title>
      <Greeting name={recipient.name} />
      <Prose text={shared.body} />
      {shared.link === undefined ? null : <ActionButton href={shared.link}>Read more</ActionButton>}
    </Layout>
  ),
});

const OPENING_LENGTH = 120;

/** The first words of the body, cut between words where there are spaces, never inside a letter. */
function opening(body: string): string {
  const text = body.replaceAll(/\s+/gu, ' ').trim();
  let length = 0;
  for (const { index } of new Intl.Segmenter('en').segment(text)) {
    length += 1;
    if (length > OPENING_LENGTH) return `${text.slice(0, index).replace(/ [^ ]{0,30}$/u, '')}…`;
  }
  return text;
}
