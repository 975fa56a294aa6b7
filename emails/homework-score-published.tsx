// Tells each learner that a homework has been scored, with the score itself where it is known.
// Every personal field is optional, so any subset of them has to make a sensible mail; an empty
// `details` leaves nothing behind, which is why the rows have no heading of their own.
import * as v from 'valibot';
import { defineTemplate, line, link } from '../src/templates/define.ts';
import { ActionButton, ActionLink } from './components/action.tsx';
import { Highlight } from './components/highlight.tsx';
import { Layout } from './components/layout.tsx';
import { Greeting, Isolated, Paragraph, Title } from './components/text.tsx';
import { color } from './components/theme.ts';
import { ValueRow, ValueRows } from './components/value-rows.tsx';

function points() {
  return v.pipe(v.number(), v.finite('must be a finite number'));
}

export const template = defineTemplate({
  category: 'transactional',
  subject: ({ shared }) => `${shared.homework_title} in ${shared.course_title} has been scored`,
  sharedSchema: v.strictObject({
    course_title: line(),
    homework_title: line(),
    scores_url: v.optional(link()),
  }),
  recipientSchema: v.strictObject({
    name: v.optional(line()),
    score: v.optional(points()),
    max_score: v.optional(points()),
    details: v.optional(
      v.pipe(
        v.array(v.strictObject({ label: line(), points: points() })),
        v.maxLength(500, 'must have at most 500 rows'),
      ),
    ),
    score_url: v.optional(link()),
  }),
  sample: {
    shared: {
      course_title: 'ML Zoomcamp 2026',
      homework_title: 'Homework 1',
      scores_url: 'https://courses.example.org/ml-zoomcamp-2026/homework-1/scores',
    },
    recipient: {
      name: 'Nguyễn Thị Hòa',
      score: 17.5,
      max_score: 20,
      details: [
        { label: 'Question 1 (NumPy and pandas)', points: 5 },
        { label: 'Вопрос 2 (пропущенные значения)', points: 5 },
        { label: '問題3（線形回帰）', points: 4.5 },
        { label: 'שאלה 4 (הסבר במילים)', points: 3 },
      ],
      score_url: 'https://courses.example.org/ml-zoomcamp-2026/homework-1/scores/4711',
    },
  },
  component: ({ shared, recipient }) => (
    <Layout
      title={`${shared.homework_title} has been scored`}
      preview="The scores have been published."
      eyebrow={shared.course_title}
      footer={
        <>
          You receive this mail because you take part in <Isolated>{shared.course_title}</Isolated>.
        </>
      }
    >
      <Title>
        <Isolated>{shared.homework_title}</Isolated> has been scored
      </Title>
      <Greeting name={recipient.name} />
      <Paragraph style={{ margin: 0 }}>
        The scores for <Isolated>{shared.homework_title}</Isolated> in{' '}
        <Isolated>{shared.course_title}</Isolated> have been published.
      </Paragraph>
      {recipient.score === undefined ? null : (
        <Highlight label="You scored">
          <span>{recipient.score}</span>
          {recipient.max_score === undefined ? null : (
            <span className="muted" style={{ color: color.muted, fontWeight: 400 }}>
              {' '}
              of <span>{recipient.max_score}</span>
            </span>
          )}
        </Highlight>
      )}
      {recipient.details === undefined ? null : (
        <ValueRows>
          {recipient.details.map((detail, index) => (
            <ValueRow key={index} label={detail.label} layout="ends" ruled>
              {detail.points}
            </ValueRow>
          ))}
        </ValueRows>
      )}
      <Links own={recipient.score_url} everyone={shared.scores_url} />
    </Layout>
  ),
});

/** The learner's own page is the button; the page of all scores is it only where that is missing. */
function Links({ own, everyone }: { own: string | undefined; everyone: string | undefined }) {
  return (
    <>
      {own === undefined ? null : <ActionButton href={own}>View your score</ActionButton>}
      {everyone === undefined ? null : own === undefined ? (
        <ActionButton href={everyone}>View the scores</ActionButton>
      ) : (
        <ActionLink href={everyone}>See all scores</ActionLink>
      )}
    </>
  );
}
