// Reminds learners that a task is due, with the moment in UTC: the recipient's time zone is not
// known, and a local time of the wrong zone would be worse. A deadline given as a date alone is
// shown without a time.
import * as v from 'valibot';
import { defineTemplate, line, link, moment } from '../src/templates/define.ts';
import { ActionButton } from './components/action.tsx';
import { Highlight } from './components/highlight.tsx';
import { Layout } from './components/layout.tsx';
import { Greeting, Isolated, Paragraph, Title } from './components/text.tsx';

export const template = defineTemplate({
  category: 'transactional',
  subject: ({ shared }) => `Reminder: ${shared.task_title} is due on ${formatDay(shared.due_at)}`,
  sharedSchema: v.strictObject({
    course_title: line(),
    task_title: line(),
    due_at: moment(),
  }),
  recipientSchema: v.strictObject({
    name: v.optional(line()),
    task_url: v.optional(link()),
  }),
  sample: {
    shared: {
      course_title: 'מבוא למדעי הנתונים',
      task_title: 'Progetto finale – qualità dei dati',
      due_at: '2026-02-01T23:00:00Z',
    },
    recipient: {
      name: 'محمد الحسن',
      task_url: 'https://courses.example.org/data-science/final-project',
    },
  },
  component: ({ shared, recipient }) => (
    <Layout
      title={`Reminder: ${shared.task_title}`}
      preview={`Due ${formatMoment(shared.due_at)}.`}
      eyebrow={shared.course_title}
      footer={
        <>
          You receive this reminder because you take part in{' '}
          <Isolated>{shared.course_title}</Isolated>.
        </>
      }
    >
      <Title>
        Reminder: <Isolated>{shared.task_title}</Isolated>
      </Title>
      <Greeting name={recipient.name} />
      <Paragraph style={{ margin: 0 }}>
        Please remember to hand in <Isolated>{shared.task_title}</Isolated> in{' '}
        <Isolated>{shared.course_title}</Isolated> before its deadline.
      </Paragraph>
      <Highlight label="Due">{formatMoment(shared.due_at)}</Highlight>
      {recipient.task_url === undefined ? null : (
        <ActionButton href={recipient.task_url}>Open the task</ActionButton>
      )}
    </Layout>
  ),
});

// The parts are put together here because the order and commas of Intl's long format change
// between ICU versions, and with them the mail of a send that is rendered again.
const WEEKDAY = new Intl.DateTimeFormat('en-GB', { weekday: 'long', timeZone: 'UTC' });
const MONTH = new Intl.DateTimeFormat('en-GB', { month: 'long', timeZone: 'UTC' });

/** `1 February 2026` */
function formatDay(moment: string): string {
  const at = new Date(moment);
  return `${at.getUTCDate()} ${MONTH.format(at)} ${at.getUTCFullYear()}`;
}

/** `Sunday, 1 February 2026 at 23:00 UTC`; of a date alone `Sunday, 1 February 2026`. */
function formatMoment(moment: string): string {
  const at = new Date(moment);
  const day = `${WEEKDAY.format(at)}, ${formatDay(moment)}`;
  if (!moment.includes('T')) return day;
  const hours = String(at.getUTCHours()).padStart(2, '0');
  const minutes = String(at.getUTCMinutes()).padStart(2, '0');
  return `${day} at ${hours}:${minutes} UTC`;
}
