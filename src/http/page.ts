// The pages that recipients see: a few words and at most two buttons, on any screen, light or dark. They
// load nothing, run nothing and are kept nowhere; nobody can frame them, and where their address has a
// token in it, no other site learns of it.
import { createHash } from 'node:crypto';
import type { Context } from 'hono';
import { html, raw } from 'hono/html';
import type { ContentfulStatusCode } from 'hono/utils/http-status';

type Markup = ReturnType<typeof html>;

export interface Page {
  title: string;
  body: Markup;
}

// The colours are those of the mails (emails/components/theme.ts).
const STYLE = `
:root{color-scheme:light dark;--page:#f4f5f7;--card:#fff;--line:#e3e6ea;--ink:#1b1f24;--muted:#5b6470;--accent:#2a53c4;--on-accent:#fff}
@media (prefers-color-scheme:dark){:root{--page:#111315;--card:#1b1e22;--line:#343a41;--ink:#eceef1;--muted:#a6afb9;--accent:#3a66db}}
*{box-sizing:border-box}
body{margin:0;padding:32px 12px;min-height:100vh;display:grid;place-items:center;background:var(--page);color:var(--ink);font:16px/26px -apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif}
main{width:100%;max-width:520px;padding:40px 44px;background:var(--card);border:1px solid var(--line);border-radius:12px;overflow-wrap:anywhere}
h1{margin:0 0 16px;font-size:24px;line-height:32px;font-weight:600}
p{margin:0 0 16px}
form{display:grid;gap:12px;margin:28px 0 0}
button{min-height:48px;padding:10px 20px;border:1px solid var(--accent);border-radius:8px;background:var(--accent);color:var(--on-accent);font:inherit;font-weight:600;cursor:pointer;overflow-wrap:anywhere;text-wrap:balance}
button.second{background:transparent;border-color:var(--muted);color:var(--ink);font-weight:400}
button:hover{filter:brightness(1.08)}
button:focus-visible{outline:3px solid var(--accent);outline-offset:2px}
small{display:block;margin:24px 0 0;color:var(--muted);font-size:13px;line-height:20px}
@media (max-width:480px){body{padding:12px 8px}main{padding:28px 20px}}
`.trim();

// Whole, because its hash is of every byte between the tags.
const STYLE_ELEMENT = raw(`<style>${STYLE}</style>`);

const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  `style-src 'sha256-${createHash('sha256').update(STYLE).digest('base64')}'`,
  "form-action 'self'",
  "base-uri 'none'",
  "frame-ancestors 'none'",
].join('; ');

export function pageResponse(
  c: Context,
  { title, body }: Page,
  status: ContentfulStatusCode = 200,
  headers: Record<string, string> = {},
): Response | Promise<Response> {
  const document = html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width" />
        <meta name="robots" content="noindex" />
        <title>${title}</title>
        ${STYLE_ELEMENT}
      </head>
      <body>
        <main>
          <h1>${title}</h1>
          ${body}
        </main>
      </body>
    </html>`;
  return c.html(document, status, {
    'content-security-policy': CONTENT_SECURITY_POLICY,
    'referrer-policy': 'no-referrer',
    'x-robots-tag': 'noindex',
    'x-content-type-options': 'nosniff',
    'cache-control': 'no-store',
    ...headers,
  });
}
