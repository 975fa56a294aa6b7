// What the reader is asked to do: one button, and at most one plain link beside it.
// In the text part each becomes its words followed by the URL, so the words are never the URL
// itself. The URL comes from a field with the `link()` schema.
import { Button, Link } from '@react-email/components';
import type { ReactNode } from 'react';
import { color, type } from './theme.ts';

interface Props {
  href: string;
  children: ReactNode;
}

/** 48 px high, full width on a phone. */
export function ActionButton({ href, children }: Props) {
  return (
    <p style={{ ...type.body, margin: '28px 0 0' }}>
      <Button className="button" href={href} style={button}>
        {children}
      </Button>
    </p>
  );
}

export function ActionLink({ href, children }: Props) {
  return (
    <p style={{ ...type.body, margin: '20px 0 0', fontSize: 15 }}>
      <Link
        className="accent"
        href={href}
        style={{ color: color.accent, textDecoration: 'underline' }}
      >
        {children}
      </Link>
    </p>
  );
}

const button = {
  ...type.body,
  backgroundColor: color.accent,
  color: color.onAccent,
  fontWeight: 600,
  borderRadius: 8,
  padding: '14px 26px',
};
