// Lays out an outline of JSON data: rows of "Label: value", nested fields indented, lists, tables.
// Lists carry the nesting, because lists are the only thing the text conversion indents. Deeper
// than INDENTED levels the indentation ends, or the values would have no room on a phone.
import type { CSSProperties } from 'react';
import { Link } from '@react-email/components';
import type { Outline } from './json-outline.ts';
import { eachLine, Isolated, Lines } from './text.tsx';
import { color, type } from './theme.ts';
import { LabelledValue, ValueRow, ValueRows } from './value-rows.tsx';

type Of<Kind extends Outline['kind']> = Extract<Outline, { kind: Kind }>;

const INDENTED = 4;

/** The fields of the outermost object, with a rule between them. */
export function JsonView({ outline }: { outline: Outline }) {
  if (outline.kind !== 'fields') return <Value outline={outline} depth={0} />;
  return (
    <>
      <ValueRows>
        {outline.fields.map(({ label, value }, index) => (
          <ValueRow key={index} label={label} layout={layoutOf(value)} ruled>
            <Value outline={value} depth={0} />
          </ValueRow>
        ))}
      </ValueRows>
      <LeftOut count={outline.left_out} />
    </>
  );
}

function layoutOf(value: Outline): 'columns' | 'stacked' | 'group' {
  if (value.kind !== 'text') return 'group';
  return value.long ? 'stacked' : 'columns';
}

function Value({ outline, depth }: { outline: Outline; depth: number }) {
  switch (outline.kind) {
    case 'text':
      return <TextValue text={outline} />;
    case 'fields':
      return (
        <ul style={listStyle(depth, false)}>
          {outline.fields.map(({ label, value }, index) => (
            <li key={index} style={{ padding: '3px 0' }}>
              <LabelledValue label={label} layout={layoutOf(value)}>
                <Value outline={value} depth={depth + 1} />
              </LabelledValue>
            </li>
          ))}
          <LeftOutItem count={outline.left_out} />
        </ul>
      );
    case 'list':
      return <ListValue list={outline} depth={depth} />;
    case 'table':
      return <TableValue table={outline} />;
  }
}

function TextValue({ text }: { text: Of<'text'> }) {
  if (text.href !== undefined) {
    return (
      <Link
        className="accent"
        href={text.href}
        style={{ color: color.accent, textDecoration: 'underline' }}
      >
        {text.lines[0]}
      </Link>
    );
  }
  if (!text.long) return <Isolated>{text.lines[0]}</Isolated>;
  return (
    <span dir="auto" style={{ display: 'block', ...eachLine }}>
      <Lines lines={text.lines} />
    </span>
  );
}

/** Texts get bullets; where an item has a layout of its own, a line at the side holds it together. */
function ListValue({ list, depth }: { list: Of<'list'>; depth: number }) {
  const texts = list.items.every((item) => item.kind === 'text');
  return (
    <ul style={listStyle(depth, texts)}>
      {list.items.map((item, index) => (
        <li key={index} className="line" style={texts ? textItem : sideLineItem}>
          {item.kind === 'fields' ? (
            <ItemFields item={item} depth={depth + 1} />
          ) : (
            <Value outline={item} depth={depth + 1} />
          )}
        </li>
      ))}
      <LeftOutItem count={list.left_out} />
    </ul>
  );
}

/** An object in a list: its fields follow the bullet directly. */
function ItemFields({ item, depth }: { item: Of<'fields'>; depth: number }) {
  return (
    <>
      <ValueRows>
        {item.fields.map(({ label, value }, index) => (
          <ValueRow key={index} label={label} layout={layoutOf(value)} ruled={false}>
            <Value outline={value} depth={depth} />
          </ValueRow>
        ))}
      </ValueRows>
      <LeftOut count={item.left_out} />
    </>
  );
}

function TableValue({ table }: { table: Of<'table'> }) {
  return (
    <>
      <table width="100%" border={0} cellPadding="0" cellSpacing="0" data-text-format="dataTable">
        <thead>
          <tr>
            {table.columns.map((column, index) => (
              <th key={index} scope="col" className="muted line" style={headCell(table, index)}>
                <Isolated>{column}</Isolated>
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {table.rows.map((cells, row) => (
            <tr key={row}>
              {cells.map((cell, index) => (
                <td key={index} className="ink line" style={bodyCell(table, index)}>
                  <Value outline={cell} depth={0} />
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
      <LeftOut count={table.left_out} />
    </>
  );
}

function LeftOut({ count }: { count: number }) {
  if (count === 0) return null;
  return (
    <p className="muted" style={{ ...type.small, margin: '8px 0 0' }}>
      … and {`${count.toLocaleString('en')} more`}
    </p>
  );
}

function LeftOutItem({ count }: { count: number }) {
  return count === 0 ? null : (
    <li>
      <LeftOut count={count} />
    </li>
  );
}

function listStyle(depth: number, bullets: boolean): CSSProperties {
  const indent = bullets ? 20 : 14;
  return {
    margin: '4px 0 0',
    paddingLeft: depth < INDENTED ? indent : 0,
    listStyleType: bullets ? 'disc' : 'none',
  };
}

const textItem: CSSProperties = { padding: '3px 0' };
const sideLineItem: CSSProperties = {
  margin: '10px 0',
  padding: '0 0 0 14px',
  borderLeft: `2px solid ${color.line}`,
};

function headCell(table: Of<'table'>, index: number): CSSProperties {
  return { ...cell(table, index), fontSize: 13, fontWeight: 600, color: color.muted };
}

function bodyCell(table: Of<'table'>, index: number): CSSProperties {
  return { ...cell(table, index), borderTop: `1px solid ${color.line}` };
}

function cell(table: Of<'table'>, index: number): CSSProperties {
  return {
    ...type.data,
    padding: index === table.columns.length - 1 ? '8px 0' : '8px 14px 8px 0',
    textAlign: table.numeric[index] === true ? 'right' : 'left',
    verticalAlign: 'top',
  };
}
