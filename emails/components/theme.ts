// The look the mails share: colours, type, and the style sheet for dark and narrow screens.
// The inline styles alone make a complete, readable light mail, because Gmail and Outlook drop
// parts of a style sheet or all of it; the sheet only adds to them. Every pair of text colour and
// background used here has a contrast of at least 4.5:1 (WCAG AA), in both modes.
import type { CSSProperties } from 'react';

const FONT = "-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif";

export const color = {
  page: '#f4f5f7',
  card: '#ffffff',
  panel: '#f4f6fb',
  line: '#e3e6ea',
  ink: '#1b1f24',
  muted: '#5b6470',
  accent: '#2a53c4',
  onAccent: '#ffffff',
};

/** Repeated on every text block: Outlook and quirks mode do not hand it down through tables. */
const base: CSSProperties = { fontFamily: FONT, color: color.ink };

export const type = {
  title: { ...base, fontSize: 24, lineHeight: '32px', fontWeight: 600 },
  body: { ...base, fontSize: 16, lineHeight: '26px' },
  data: { ...base, fontSize: 15, lineHeight: '22px' },
  small: { ...base, fontSize: 13, lineHeight: '20px', color: color.muted },
} satisfies Record<string, CSSProperties>;

/** A word without a break opportunity must not widen the mail beyond the screen. Inherited. */
export const breakable: CSSProperties = { wordBreak: 'break-word' };

// A class names what an element is (`ink`, `muted`, `line` …); the dark colours hang on the classes.
// The second selector of the page reaches the cell React Email's Body puts inside <body>.
export const STYLE_SHEET = `
:root{color-scheme:light dark;supported-color-schemes:light dark}
@media (max-width:480px){
.page>table>tbody>tr>td{padding:12px 8px 24px!important}
.card{padding:28px 20px!important}
.button{display:block!important;text-align:center!important}
}
@media (prefers-color-scheme:dark){
.page,.page>table>tbody>tr>td{background-color:#111315!important}
.card{background-color:#1b1e22!important}
.panel{background-color:#23272d!important}
.card,.line{border-color:#343a41!important}
.ink{color:#eceef1!important}
.muted{color:#a6afb9!important}
.accent{color:#94b4ff!important}
.button{background-color:#3a66db!important}
}`
  .trim()
  .replaceAll('\n', '');
