// Renders a template for one recipient: React to HTML, HTML to text. The text part keeps values as
// they are: React Email's own conversion would upper-case headings.
import { plainTextSelectors, render } from '@react-email/render';
import { compile, type FormatCallback } from 'html-to-text';
import type { ReactNode } from 'react';
import type { TemplateDefinition } from './define.ts';
import type { Contexts } from './registry.ts';

export interface Rendered {
  subject: string;
  html: string;
  text: string;
}

const HEADINGS = ['h1', 'h2', 'h3', 'h4', 'h5', 'h6'];
/** As React Email's own, which compiles its options for each mail: that takes three times as long as the rest. */
const toPlainText = compile({
  wordwrap: false,
  // React writes no whitespace of its own, so what there is belongs to the values: none is collapsed.
  whitespaceCharacters: '\u0001',
  formatters: { link: formatLink },
  selectors: [
    ...plainTextSelectors,
    ...HEADINGS.map((selector) => ({ selector, options: { uppercase: false } })),
    {
      selector: '[data-text-format="dataTable"]',
      format: 'dataTable',
      options: { uppercaseHeaderCells: false },
    },
    { selector: 'a', format: 'link' },
  ],
});

/**
 * RFC 3986, appendix C: a URL in text stands in angle brackets, so that it ends where it ends. It
 * stands whole: html-to-text's own formatter would leave out "mailto:".
 */
function formatLink(...[anchor, walk, builder]: Parameters<FormatCallback>): void {
  const href = anchor.attribs?.href ?? '';
  let text = '';
  builder.pushWordTransform((word) => {
    text += word;
    return word;
  });
  walk(anchor.children, builder);
  builder.popWordTransform();
  if (href === '' || href === text || href === `mailto:${text}`) return;
  builder.addInline(text === '' ? href : ` <${href}>`, { noWordTransform: true });
}

/** The contexts must fit the template's schemas. Pure: the same contexts give the same mail. */
export async function renderTemplate(
  template: TemplateDefinition,
  { shared, recipient, links = {} }: Contexts,
): Promise<Rendered> {
  const props = { shared, recipient, links };
  const markup = await renderMarkup(template.component(props));
  return { subject: headerText(template.subject(props)), ...markup };
}

export async function renderMarkup(node: ReactNode): Promise<Omit<Rendered, 'subject'>> {
  const html = await render(node);
  return { html, text: toPlainText(html).replaceAll(/ +$/gmu, '') };
}

/** One header line: what would end it becomes a space (RFC 5322, section 2.2). */
export function headerText(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/gu, ' ').trim();
}
