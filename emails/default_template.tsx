// Shows any JSON object: keys as labels, nested objects indented, arrays as lists or small tables.
// The template of single emails that have no design of their own. Personal fields stand in place
// of shared ones of the same name. No data makes it fail; more values than a mail can show are
// left out, and the mail says so.
import * as v from 'valibot';
import { defineTemplate } from '../src/templates/define.ts';
import { JsonView } from './components/json-view.tsx';
import { outline } from './components/json-outline.ts';
import { Layout } from './components/layout.tsx';
import { Isolated, Paragraph, Title } from './components/text.tsx';

type Data = Record<string, unknown>;
interface Contexts {
  shared: Data;
  recipient: Data;
}

export const template = defineTemplate({
  category: 'transactional',
  subject: (contexts) => headingOf(merge(contexts)).text,
  sharedSchema: v.record(v.string(), v.unknown()),
  recipientSchema: v.record(v.string(), v.unknown()),
  sample: {
    shared: {
      title: 'Your order is on its way',
      order_id: 'A-2026-00417',
      tracking_url: 'https://shop.example.org/track/A-2026-00417',
      gift: false,
      items: [
        { item: 'Кружка «Заря»', quantity: 2, price: 11.5 },
        { item: 'دفتر ملاحظات', quantity: 1, price: 4.2 },
        { item: '万年筆', quantity: 1, price: 38 },
      ],
    },
    recipient: {
      name: 'Łukasz Żółć-Øvergård',
      address: { street: '테헤란로 427', city: '서울', country: '대한민국' },
      notes: ['Ring twice', 'घंटी बजाएँ'],
      voucher: null,
    },
  },
  component: (contexts) => {
    const data = merge(contexts);
    const heading = headingOf(data);
    if (heading.key !== undefined) data.delete(heading.key);
    return (
      <Layout title={heading.text} footer="This is an automatic message.">
        <Title>
          <Isolated>{heading.text}</Isolated>
        </Title>
        {data.size === 0 ? (
          heading.key === undefined ? (
            <Paragraph>There is nothing more to tell.</Paragraph>
          ) : null
        ) : (
          <JsonView outline={outline(Object.fromEntries(data))} />
        )}
      </Layout>
    );
  },
});

/** A Map, because a field may be called `__proto__`. */
function merge({ shared, recipient }: Contexts): Map<string, unknown> {
  return new Map([...Object.entries(shared), ...Object.entries(recipient)]);
}

const HEADING_LENGTH = 300;

/** `title`, else `subject`, where it is a text that can be a heading; its key, to not repeat it. */
function headingOf(data: Map<string, unknown>): { text: string; key?: string } {
  for (const key of ['title', 'subject']) {
    const value = data.get(key);
    if (typeof value !== 'string' || value.length > HEADING_LENGTH) continue;
    const text = value.replaceAll(/[\p{Cc}\s]+/gu, ' ').trim();
    if (text !== '') return { text, key };
  }
  return { text: 'Notification' };
}
