// Headings, paragraphs and the wrapping of other people's words.
// A name or a title can be in a right-to-left script; without isolation it drags the punctuation
// and numbers beside it to its other side. `dir="auto"` isolates and picks the direction from the
// first letter. It is used rather than <bdi>, which Gmail, Outlook and Yahoo remove (caniemail.com).
import type { CSSProperties, ReactNode } from 'react';
import { Fragment } from 'react';
import { type } from './theme.ts';

interface Props {
  children: ReactNode;
  style?: CSSProperties;
}

/** Words of unknown script inside a sentence. */
export function Isolated({ children }: { children: ReactNode }) {
  return <span dir="auto">{children}</span>;
}

/** The one heading of a mail. */
export function Title({ children }: { children: ReactNode }) {
  return (
    <h1 className="ink" style={{ ...type.title, margin: '0 0 20px' }}>
      {children}
    </h1>
  );
}

/** A paragraph of our own words. */
export function Paragraph({ children, style }: Props) {
  return (
    <p className="ink" style={{ ...type.body, margin: '0 0 16px', ...style }}>
      {children}
    </p>
  );
}

export function Greeting({ name }: { name: string | undefined }) {
  return (
    <Paragraph>
      {name === undefined ? (
        'Hello,'
      ) : (
        <>
          Hi <Isolated>{name}</Isolated>,
        </>
      )}
    </Paragraph>
  );
}

/** Text of several paragraphs: a blank line separates them, a single line break stays one. */
export function Prose({ text }: { text: string }) {
  return splitParagraphs(text).map((lines, index) => (
    <p key={index} className="ink" dir="auto" style={proseStyle}>
      <Lines lines={lines} />
    </p>
  ));
}

/** Every line has a direction of its own, where the client knows it; else all have the first's. */
export const eachLine: CSSProperties = { unicodeBidi: 'plaintext' };

const proseStyle: CSSProperties = { ...type.body, ...eachLine, margin: '0 0 16px' };

export function Lines({ lines }: { lines: string[] }) {
  return lines.map((line, index) => (
    <Fragment key={index}>
      {index === 0 ? null : <br />}
      {line}
    </Fragment>
  ));
}

/** Lines end with LF, CR LF or CR. */
export function splitLines(text: string): string[] {
  return text.split(/\r\n|\r|\n/u);
}

function splitParagraphs(text: string): string[][] {
  const found: string[][] = [[]];
  for (const line of splitLines(text)) {
    if (line.trim() === '') found.push([]);
    else found.at(-1)?.push(line);
  }
  return found.filter((lines) => lines.length > 0);
}
