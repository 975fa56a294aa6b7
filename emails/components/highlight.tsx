// The one fact a mail is about (a score, a date), set apart on a tinted panel.
// Label and value share a paragraph, so the text part reads as one line: "You scored 18 of 20".
import { Column, Row } from '@react-email/components';
import type { ReactNode } from 'react';
import { color, type } from './theme.ts';

export function Highlight({ label, children }: { label: string; children: ReactNode }) {
  return (
    <Row style={{ margin: '24px 0 8px' }}>
      <Column
        className="panel"
        style={{ backgroundColor: color.panel, borderRadius: 8, padding: '18px 22px' }}
      >
        <p className="ink" style={{ ...type.title, margin: 0, fontSize: 22 }}>
          <span className="muted" style={labelStyle}>
            {label}
          </span>{' '}
          {children}
        </p>
      </Column>
    </Row>
  );
}

const labelStyle = {
  color: color.muted,
  display: 'block',
  fontSize: 13,
  lineHeight: '20px',
  fontWeight: 400,
};
