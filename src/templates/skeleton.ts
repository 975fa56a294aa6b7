// The HTML and text of one structure of a template, with gaps for personal leaves: React renders it with a
// mark in the place of each, and it is cut there. A skeleton that does not give what React gives, for the
// member it is made with and for values full of special characters, is none.
import { randomBytes } from 'node:crypto';
import type { ReactNode } from 'react';
import { fill, type Pattern } from '../smtp/pattern.ts';
import { rebuildTree, type ElementTree, type Leaf, type Link } from './element-tree.ts';
import { renderMarkup, type Rendered } from './render.ts';

/** What all messages of one structure share. Gaps refer to the values of {@link Found}. */
export interface Skeleton {
  html: Pattern;
  text: Pattern;
}

export interface Found {
  tree: ElementTree;
  /** The leaves that differ between members, by index, ascending. */
  personal: readonly number[];
  /** Those with personal leaves. */
  links: readonly Link[];
  /** Of this member. */
  values: readonly string[];
}

/**
 * Renders the markup with a mark in the place of each personal leaf, and cuts it there. Undefined where
 * marks do not come out as values do: as those of this member, and as one that has to be escaped.
 */
export async function makeSkeleton(markup: ReactNode, found: Found): Promise<Skeleton | undefined> {
  const { tree, personal, values } = found;
  if (personal.length === 0) {
    const { html, text } = await renderMarkup(markup);
    return { html: { fixed: [html], gaps: [] }, text: { fixed: [text], gaps: [] } };
  }
  // It stands nowhere else: nobody who writes a value knows it.
  const nonce = randomBytes(16).toString('hex');
  const marked = await renderWith(markup, found, (leaf, place) => markOf(leaf, nonce, place));
  const skeleton = { html: cut(marked.html, nonce, 1), text: cut(marked.text, nonce, 0) };
  if (!isEqual(skeleton, values, await renderMarkup(markup))) return undefined;
  const probes = personal.flatMap((leaf, place) => {
    const probe = probeOf(tree.leaves[leaf]!, place);
    return [probe, escapeHtml(probe)];
  });
  const probed = await renderWith(markup, found, probeOf);
  return isEqual(skeleton, probes, probed) ? skeleton : undefined;
}

function isEqual(
  { html, text }: Skeleton,
  values: readonly string[],
  full: Omit<Rendered, 'subject'>,
): boolean {
  return fill(html, values) === full.html && fill(text, values) === full.text;
}

function renderWith(
  markup: ReactNode,
  { tree: { leaves }, personal }: Found,
  valueOf: (leaf: Leaf, place: number) => string,
): Promise<Omit<Rendered, 'subject'>> {
  const values = new Map(personal.map((leaf, place) => [leaf, valueOf(leaves[leaf]!, place)]));
  return renderMarkup(rebuildTree(markup, (leaf) => values.get(leaf) ?? leaves[leaf]!.value));
}

/** Looks like what it stands for. */
function markOf({ kind }: Leaf, nonce: string, place: number): string {
  return kind === 'text' ? `t${nonce}t${place}t` : `https://h${nonce}h${place}h`;
}

/** Whatever is special in HTML. */
function probeOf({ kind }: Leaf, place: number): string {
  const special = `${place}"&'<b>&amp;</b>-->`;
  return kind === 'text' ? `é${special}` : `https://a.example/?${special}`;
}

/** `offset`: a leaf's value as it is, or the one escaped for HTML. */
function cut(marked: string, nonce: string, offset: 0 | 1): Pattern {
  const parts = marked.split(new RegExp(`(?:https://h${nonce}h|t${nonce}t)(\\d+)[ht]`, 'u'));
  return {
    fixed: parts.filter((_, at) => at % 2 === 0),
    gaps: parts.filter((_, at) => at % 2 === 1).map((place) => 2 * Number(place) + offset),
  };
}

const ESCAPES: Record<string, string> = {
  '"': '&quot;',
  '&': '&amp;',
  "'": '&#x27;',
  '<': '&lt;',
  '>': '&gt;',
};

/** As React writes text and attributes. */
export function escapeHtml(value: string): string {
  return value.replaceAll(/["&'<>]/gu, (character) => ESCAPES[character]!);
}
