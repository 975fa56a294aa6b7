// The small print under the card: one line that says why the recipient gets the mail. A marketing
// mail's unsubscribe link joins it here, as a second paragraph.
import { Column, Row } from '@react-email/components';
import type { ReactNode } from 'react';
import { breakable, type } from './theme.ts';

export function Footer({ children }: { children: ReactNode }) {
  return (
    <Row>
      <Column style={{ padding: '20px 16px 0', ...breakable }}>
        <p className="muted" style={{ ...type.small, margin: 0, textAlign: 'center' }}>
          {children}
        </p>
      </Column>
    </Row>
  );
}
