// Which of a recipient's links a template's mail shows, found out by rendering its sample. Marketing mail
// without a visible way out must not exist (RFC 8058 covers the header only; laws and mailbox providers
// want the link as well), so such a template does not load.
import { renderTemplate } from './render.ts';
import type { Links, TemplateDefinition } from './define.ts';

export type ShownLinks = Record<keyof Links, boolean>;

/** Also what a preview shows. */
export const SAMPLE_LINKS: Required<Links> = {
  unsubscribe: 'https://mail.example.com/unsubscribe/sample',
  confirm: 'https://mail.example.com/confirm/sample',
};

/** @throws where a link stands in one part only, or marketing mail does not show its own */
export async function shownLinks(
  template: TemplateDefinition & { key: string },
): Promise<ShownLinks> {
  const { html, text } = await renderTemplate(template, {
    ...template.sample,
    links: SAMPLE_LINKS,
  });
  const shows = (name: keyof Links): boolean => {
    const url = SAMPLE_LINKS[name];
    const parts = [html.includes(`href="${url}"`), text.includes(url)];
    if (parts[0] !== parts[1])
      throw new Error(
        `emails/${template.key}: links.${name} must stand in both parts, or in neither; ` +
          `it stands only in the ${parts[0] ? 'HTML' : 'text'} part`,
      );
    return parts[0]!;
  };
  const shown = { unsubscribe: shows('unsubscribe'), confirm: shows('confirm') };
  if (template.category === 'marketing' && !shown.unsubscribe)
    throw new Error(`emails/${template.key}: a marketing mail must show links.unsubscribe`);
  return shown;
}
