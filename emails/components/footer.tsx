// The small print under the card: one line that says why the recipient gets the mail, and below it the
// recipient's own way out, where the mail has one.
import { Column, Link, Row } from '@react-email/components';
import type { ReactNode } from 'react';
import { breakable, color, type } from './theme.ts';

interface Props {
  /** The recipient's unsubscribe link. */
  unsubscribe: string | undefined;
  children: ReactNode;
}

export function Footer({ unsubscribe, children }: Props) {
  return (
    <Row>
      <Column style={{ padding: '20px 16px 0', ...breakable }}>
        <p className="muted" style={{ ...type.small, margin: 0, textAlign: 'center' }}>
          {children}
        </p>
        {unsubscribe === undefined ? null : (
          <p style={{ ...type.small, margin: '8px 0 0', textAlign: 'center' }}>
            <Link className="muted" href={unsubscribe} style={link}>
              Unsubscribe
            </Link>
          </p>
        )}
      </Column>
    </Row>
  );
}

const link = { ...type.small, color: color.muted, textDecoration: 'underline' };
