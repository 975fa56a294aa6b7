// A marketing template that shows its recipients no way out: it must not load.
import * as v from 'valibot';
import { defineTemplate } from '../../../src/templates/define.ts';

export const template = defineTemplate({
  category: 'marketing',
  subject: () => 'Buy',
  sharedSchema: v.strictObject({}),
  recipientSchema: v.strictObject({}),
  sample: { shared: {}, recipient: {} },
  component: () => (
    <html>
      <body>Buy</body>
    </html>
  ),
});
