// The frame of every mail: document, head, hidden preview line, card and footer.
// `title` and `preview` take plain text that is the same for every recipient. A personal value does
// not belong there: inbox previews show on lock screens, and React Email's <Preview> (not used)
// measures its text and cuts it after 150 UTF-16 units, even through an emoji.
import { Body, Column, Container, Head, Html, Row } from '@react-email/components';
import type { ReactNode } from 'react';
import { Footer } from './footer.tsx';
import { breakable, color, STYLE_SHEET, type } from './theme.ts';
import { Isolated } from './text.tsx';

interface LayoutProps {
  /** Shown by the browser's tab when the mail is opened alone; read first by screen readers. */
  title: string;
  /** What the inbox shows after the subject; without it, the beginning of the mail. */
  preview?: string;
  /** Small line above the heading, such as the course. Left out of the text part. */
  eyebrow?: string;
  /** One line that says why the recipient gets this mail. */
  footer: ReactNode;
  /** The recipient's unsubscribe link, of `links.unsubscribe`. */
  unsubscribe?: string | undefined;
  children: ReactNode;
}

export function Layout({ title, preview, eyebrow, footer, unsubscribe, children }: LayoutProps) {
  return (
    <Html lang="en" dir="ltr">
      <Head>
        <title>{title}</title>
        <meta name="viewport" content="width=device-width" />
        <meta name="color-scheme" content="light dark" />
        <meta name="supported-color-schemes" content="light dark" />
        <meta name="format-detection" content="telephone=no,date=no,address=no,email=no" />
        <style>{STYLE_SHEET}</style>
      </Head>
      <Body
        className="page"
        style={{ backgroundColor: color.page, padding: '32px 12px 40px', margin: 0 }}
      >
        {preview === undefined ? null : <PreviewLine text={preview} />}
        <Container style={{ maxWidth: 600 }}>
          <Row>
            <Column className="card" style={card}>
              {eyebrow === undefined ? null : (
                <p className="accent" style={eyebrowStyle} data-skip-in-text="true">
                  <Isolated>{eyebrow}</Isolated>
                </p>
              )}
              {children}
            </Column>
          </Row>
          <Footer unsubscribe={unsubscribe}>{footer}</Footer>
        </Container>
      </Body>
    </Html>
  );
}

// The filler keeps inboxes from showing the beginning of the mail after a short preview line.
const FILLER = '\u00a0\u200c'.repeat(90);

function PreviewLine({ text }: { text: string }) {
  return (
    <div
      style={{ display: 'none', overflow: 'hidden', maxHeight: 0, maxWidth: 0, opacity: 0 }}
      data-skip-in-text="true"
    >
      {`${text}${FILLER}`}
    </div>
  );
}

const card = {
  backgroundColor: color.card,
  border: `1px solid ${color.line}`,
  borderRadius: 12,
  padding: '40px 44px',
  ...breakable,
};

const eyebrowStyle = {
  ...type.small,
  color: color.accent,
  fontWeight: 600,
  margin: '0 0 8px',
};
