// Lines of "Label: value" that look like a table and read like lines.
// A real table of two columns would put every cell on a line of its own in the text part. So a row
// is one cell, and its label and value are spans laid out by `display: table`; a client without
// that (Outlook on Windows) shows "Label: value" in running text.
import type { CSSProperties, ReactNode } from 'react';
import { Isolated } from './text.tsx';
import { color, type } from './theme.ts';

export function ValueRows({ children }: { children: ReactNode }) {
  return (
    <table role="presentation" width="100%" border={0} cellPadding="0" cellSpacing="0">
      <tbody>{children}</tbody>
    </table>
  );
}

interface PairProps {
  label: ReactNode;
  /**
   * `ends`: value at the right edge, for short numbers. `columns`: value beside the label.
   * `stacked`: value under the label, for long text. `group`: the same, the label a small heading.
   */
  layout: 'ends' | 'columns' | 'stacked' | 'group';
  children: ReactNode;
}

/** Rows are all alike, the first and the last too: a compiled template repeats one row's markup. */
export function ValueRow({ ruled, ...pair }: PairProps & { ruled: boolean }) {
  return (
    <tr>
      <td className="ink line" style={ruled ? ruledCell : plainCell}>
        <LabelledValue {...pair} />
      </td>
    </tr>
  );
}

/** The pair alone, for places that are a text block already. */
export function LabelledValue({ label, layout, children }: PairProps) {
  if (layout === 'stacked' || layout === 'group') {
    return (
      <>
        {layout === 'group' ? (
          <span style={{ display: 'block', fontWeight: 600 }}>
            <Isolated>{label}</Isolated>:
          </span>
        ) : (
          <Label style={{ display: 'block' }}>{label}</Label>
        )}{' '}
        {children}
      </>
    );
  }
  return (
    <span style={{ display: 'table', width: '100%', tableLayout: 'fixed' }}>
      <Label style={layout === 'ends' ? wideLabel : narrowLabel}>{label}</Label>{' '}
      <span style={layout === 'ends' ? endValue : value}>{children}</span>
    </span>
  );
}

function Label({ children, style }: { children: ReactNode; style: CSSProperties }) {
  return (
    <span className="muted" style={{ color: color.muted, ...style }}>
      <Isolated>{children}</Isolated>:
    </span>
  );
}

const plainCell: CSSProperties = { ...type.data, padding: '3px 0' };
const ruledCell: CSSProperties = {
  ...type.data,
  padding: '12px 0',
  borderBottom: `1px solid ${color.line}`,
};

const value: CSSProperties = { display: 'table-cell', verticalAlign: 'top' };
const endValue: CSSProperties = { ...value, textAlign: 'right' };
const wideLabel: CSSProperties = { ...value, width: '75%', paddingRight: 12 };
const narrowLabel: CSSProperties = { ...value, width: '36%', paddingRight: 12 };
