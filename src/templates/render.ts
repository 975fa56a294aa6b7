// Renders a template for one recipient: React to HTML, HTML to text. The text part keeps values as
// they are: React Email's own conversion would upper-case headings.
import { render, toPlainText } from '@react-email/render';
import type { Template, Contexts } from './registry.ts';

export interface Rendered {
  subject: string;
  html: string;
  text: string;
}

const HEADINGS = ['h1', 'h2', 'h3', 'h4', 'h5', 'h6'];
const TEXT_OPTIONS = {
  selectors: [
    ...HEADINGS.map((selector) => ({ selector, options: { uppercase: false } })),
    {
      selector: '[data-text-format="dataTable"]',
      format: 'dataTable',
      options: { uppercaseHeaderCells: false },
    },
    // RFC 3986, appendix C: a URL in text stands in angle brackets, so that it ends where it ends.
    {
      selector: 'a',
      options: { linkBrackets: ['<', '>'] as [string, string], hideLinkHrefIfSameAsText: true },
    },
  ],
};

/** The contexts must fit the template's schemas. Pure: the same contexts give the same mail. */
export async function renderTemplate(template: Template, contexts: Contexts): Promise<Rendered> {
  const html = await render(template.component(contexts));
  return {
    subject: headerText(template.subject(contexts)),
    html,
    text: toPlainText(html, TEXT_OPTIONS),
  };
}

/** One header line: what would end it becomes a space (RFC 5322, section 2.2). */
export function headerText(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/gu, ' ').trim();
}
