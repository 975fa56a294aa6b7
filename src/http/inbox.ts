// /inbox of `dev`: what the local mail server received, as a mail client would show it. The HTML part
// is shown in a sandboxed frame without scripts, as it comes from whoever called the API.
import { Hono } from 'hono';
import { html, raw } from 'hono/html';
import type { Sink } from '../smtp/sink.ts';
import { parseMail } from '../smtp/sink.ts';
import { notFound } from '../errors.ts';

const SHOWN = 200;

export function inbox(sink: Sink) {
  const app = new Hono();
  const find = (id: string) => {
    const mail = sink.mails.find((one) => String(one.id) === id);
    if (!mail) throw notFound('The mail');
    return mail;
  };

  app.get('/', async (c) => {
    const newest = sink.mails.slice(-SHOWN).reverse();
    const rows = await Promise.all(
      newest.map(async (mail) => ({ mail, email: await parseMail(mail) })),
    );
    return c.html(
      layout(
        'Inbox',
        html`<h1>Inbox</h1>
          <p class="quiet">
            ${sink.accepted} mails
            received${sink.accepted > rows.length ? `, the last ${rows.length} shown` : ''}. They
            stay on this machine. <a href="">Reload</a>
          </p>
          ${
            rows.length === 0
              ? html`<p class="empty">Nothing yet. Trigger a send and reload.</p>`
              : html`<ul>
                  ${rows.map(
                    ({ mail, email }) =>
                      html`<li>
                        <a href="/inbox/${mail.id}"
                          ><span class="to">${mail.to.join(', ')}</span
                          ><span class="subject">${email.subject || '(no subject)'}</span
                          ><time>${mail.received_at.toISOString().slice(11, 19)}</time></a
                        >
                      </li>`,
                  )}
                </ul>`
          }`,
      ),
    );
  });

  app.get('/:id', async (c) => {
    const mail = find(c.req.param('id'));
    const email = await parseMail(mail);
    const shown = new Set([
      'from',
      'to',
      'cc',
      'reply-to',
      'date',
      'message-id',
      'list-id',
      'list-unsubscribe',
      'list-unsubscribe-post',
    ]);
    const headers = email.headers.filter((header) => shown.has(header.key));
    return c.html(
      layout(
        email.subject ?? 'Mail',
        html`<p><a href="/inbox">← Inbox</a></p>
          <h1>${email.subject}</h1>
          <dl>
            <dt>Envelope</dt>
            <dd>${mail.from} → ${mail.to.join(', ')}</dd>
            ${headers.map(
              (header) =>
                html`<dt>${header.originalKey}</dt>
                  <dd>${header.value}</dd>`,
            )}
          </dl>
          ${email.html ? html`<iframe sandbox="allow-popups allow-popups-to-escape-sandbox" title="HTML part" src="/inbox/${mail.id}/html"></iframe>` : raw('')}
          <h2>Text part</h2>
          <pre>${email.text}</pre>
          <p><a href="/inbox/${mail.id}/raw">Raw message</a></p>`,
      ),
    );
  });

  app.get('/:id/html', async (c) => {
    const email = await parseMail(find(c.req.param('id')));
    return c.html(email.html ?? '', 200, {
      // Links open in a window of their own, which is a page like any other.
      'content-security-policy':
        "sandbox allow-popups allow-popups-to-escape-sandbox; script-src 'none'",
    });
  });

  app.get('/:id/raw', (c) => {
    c.header('content-type', 'text/plain; charset=utf-8');
    return c.body(new Uint8Array(find(c.req.param('id')).raw));
  });

  return app;
}

function layout(title: string, body: ReturnType<typeof html>) {
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width" />
        <title>${title} · Rosterpost</title>
        <style>
          :root {
            color-scheme: light dark;
            --line: #8883;
            --quiet: light-dark(#666, #aaa);
          }
          body {
            font:
              16px/1.5 system-ui,
              sans-serif;
            max-width: 60rem;
            margin: 2rem auto;
            padding: 0 1rem;
          }
          h1 {
            font-size: 1.5rem;
            margin: 0.5rem 0;
          }
          h2 {
            font-size: 1rem;
            margin: 1.5rem 0 0.5rem;
          }
          a {
            color: light-dark(#0b57d0, #8ab4f8);
          }
          ul {
            list-style: none;
            margin: 1rem 0;
            padding: 0;
            border-top: 1px solid var(--line);
          }
          li a {
            display: grid;
            grid-template-columns: 16rem 1fr auto;
            gap: 1rem;
            padding: 0.6rem 0.25rem;
            border-bottom: 1px solid var(--line);
            text-decoration: none;
            color: inherit;
          }
          li a:hover {
            background: #8881;
          }
          .to,
          .subject {
            overflow: hidden;
            text-overflow: ellipsis;
            white-space: nowrap;
          }
          .subject {
            font-weight: 600;
          }
          .quiet,
          time,
          dt {
            color: var(--quiet);
          }
          .empty {
            padding: 3rem 0;
            text-align: center;
            color: var(--quiet);
          }
          dl {
            display: grid;
            grid-template-columns: max-content 1fr;
            gap: 0.2rem 1rem;
            font-size: 0.9rem;
          }
          dd {
            margin: 0;
            overflow-wrap: anywhere;
          }
          iframe {
            width: 100%;
            height: 36rem;
            border: 1px solid var(--line);
            border-radius: 8px;
            background: #fff;
          }
          pre {
            white-space: pre-wrap;
            overflow-wrap: anywhere;
            padding: 1rem;
            border: 1px solid var(--line);
            border-radius: 8px;
          }
          @media (max-width: 40rem) {
            li a {
              grid-template-columns: 1fr auto;
            }
            .subject {
              grid-row: 2;
            }
          }
        </style>
      </head>
      <body>
        ${body}
      </body>
    </html>`;
}
