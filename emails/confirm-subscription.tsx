// Asks a person whether they want the mail of a list: the second step of double opt-in. The list's name
// and the person's are filled in where the request gives none. Without a confirmation link (a test-send)
// there is no button.
import * as v from 'valibot';
import { defineTemplate, line, paragraphs } from '../src/templates/define.ts';
import { ActionButton } from './components/action.tsx';
import { Layout } from './components/layout.tsx';
import { Greeting, Isolated, Paragraph, Prose, Title } from './components/text.tsx';

export const template = defineTemplate({
  category: 'transactional',
  subject: ({ shared }) =>
    shared.list_name === undefined
      ? 'Please confirm your subscription'
      : `Please confirm your subscription to ${shared.list_name}`,
  sharedSchema: v.strictObject({
    list_name: v.optional(line()),
    /** Words of the sender above the button. */
    message: v.optional(paragraphs(2_000)),
  }),
  recipientSchema: v.strictObject({
    name: v.optional(line()),
  }),
  sample: {
    shared: {
      list_name: 'Course news · Новости курсов',
      message: 'You asked for our course news on courses.example.org.',
    },
    recipient: { name: 'Zoë Krüger' },
  },
  component: ({ shared, recipient, links }) => (
    <Layout
      title="Please confirm your subscription"
      preview="One more step: confirm that you want these mails."
      footer="You receive this mail because somebody gave your address. If it was not you, do nothing: you will not be subscribed."
    >
      <Title>Please confirm your subscription</Title>
      <Greeting name={recipient.name} />
      {shared.message === undefined ? null : <Prose text={shared.message} />}
      <Paragraph style={{ margin: 0 }}>
        {shared.list_name === undefined ? (
          'Do you want to receive our mails? Please confirm it once.'
        ) : (
          <>
            Do you want to receive <Isolated>{shared.list_name}</Isolated>? Please confirm it once.
          </>
        )}
      </Paragraph>
      {links.confirm === undefined ? null : (
        <ActionButton href={links.confirm}>Confirm my subscription</ActionButton>
      )}
    </Layout>
  ),
});
