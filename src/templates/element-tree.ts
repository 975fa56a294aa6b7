// A template's markup before React turns it into HTML: its components are called, as React would call
// them, down to HTML elements, which takes microseconds where React's output takes a millisecond. What
// decides the markup (structure) is kept apart from words and link targets that can differ between two
// mails without changing anything around them (leaves). What cannot be told apart with certainty is part
// of the structure; what only React can render (hooks, contexts, classes, promises) is refused.
import { createElement, Fragment, isValidElement, type ReactNode } from 'react';
import { callComponent, NotPlain, withoutHooks } from './call-component.ts';

export interface ElementTree {
  /** Two trees whose structures are equal, one by one with `===`, differ in their leaves only. */
  structure: unknown[];
  leaves: Leaf[];
  links: Link[];
}

export interface Leaf {
  kind: 'text' | 'href';
  value: string;
}

/** An <a>: how it reads as text depends on whether its words are its target. */
export interface Link {
  /** A leaf by its index, or what it is for every mail. */
  href: number | string;
  /** Its words are the leaves from here … */
  from: number;
  /** … to before here. */
  to: number;
  /** It holds more than words. */
  isUnclear: boolean;
}

const TEXT = Symbol('text');
const HREF = Symbol('href');
const EMPTY = Symbol('empty text');
const OTHER_TEXT = Symbol('text that is part of the structure');
const NAN = Symbol('NaN');
const CHILDREN = Symbol('children');
const ARRAY = Symbol('array');
const END = Symbol('end');

const INLINE = 'span b strong i em u s small code font sub sup img br'.split(' ');
/** Of a link's words: none of an image, nor of a line break, stands in the text part. */
const INLINE_TAGS = new Set(INLINE);
const BLOCKS =
  'html body div center section article header footer main nav blockquote p h1 h2 h3 h4 h5 h6 ' +
  'table thead tbody tfoot tr td th ul ol li a hr';
/** Words in these are escaped, and nothing else happens to them, neither in HTML nor as text. */
const PLAIN_TAGS = new Set([...BLOCKS.split(' '), ...INLINE]);

type LeafAt = (index: number) => string;

/** @throws NotPlain, and whatever the component or another one of its markup throws */
export function readTree(component: () => ReactNode): ElementTree {
  const tree: ElementTree = { structure: [], leaves: [], links: [] };
  withoutHooks(() => {
    void walk(tree, component(), true, undefined);
  });
  return tree;
}

/** The same tree as HTML elements, with other words and link targets in the places of its leaves. */
export function rebuildTree(node: ReactNode, leafAt: LeafAt): ReactNode {
  return walk({ structure: [], leaves: [], links: [] }, node, true, undefined, leafAt);
}

/** `isPlain`: nothing around it does anything to words. Gives the node rebuilt where `leafAt` is given. */
function walk(
  tree: ElementTree,
  node: ReactNode,
  isPlain: boolean,
  link: Link | undefined,
  leafAt?: LeafAt,
): ReactNode {
  if (typeof node === 'string') return walkText(tree, node, isPlain, leafAt);
  if (node === null || node === undefined || typeof node === 'boolean') return null;
  if (typeof node === 'number') return walkText(tree, String(node), isPlain, leafAt);
  if (Array.isArray(node)) {
    tree.structure.push(ARRAY);
    const parts: ReactNode[] = [];
    for (const one of node as ReactNode[]) parts.push(walk(tree, one, isPlain, link, leafAt));
    tree.structure.push(END);
    return leafAt && createElement(Fragment, null, ...parts);
  }
  if (!isValidElement<Record<string, unknown>>(node)) throw new NotPlain(describe(node));
  const { type, props } = node;
  const before = tree.leaves.length;
  const rebuilt =
    typeof type === 'string'
      ? walkElement(tree, type, props, isPlain, link, leafAt)
      : walk(tree, contentOf(type, props), isPlain, link, leafAt);
  return tree.leaves.length === before ? node : rebuilt;
}

function walkText(
  { structure, leaves }: ElementTree,
  value: string,
  isPlain: boolean,
  leafAt: LeafAt | undefined,
): ReactNode {
  if (value === '' || !isPlain) {
    if (value === '') structure.push(EMPTY);
    else structure.push(OTHER_TEXT, value);
    return value;
  }
  structure.push(TEXT);
  leaves.push({ kind: 'text', value });
  return leafAt?.(leaves.length - 1);
}

function walkElement(
  tree: ElementTree,
  tag: string,
  props: Record<string, unknown>,
  isPlainAround: boolean,
  linkAround: Link | undefined,
  leafAt: LeafAt | undefined,
): ReactNode {
  const { structure, leaves } = tree;
  const isPlain = isPlainAround && PLAIN_TAGS.has(tag) && props['data-text-format'] === undefined;
  const isLink = tag === 'a';
  let href: number | string = '';
  let isUnclear = false;
  structure.push(tag);
  for (const name in props) {
    const value = props[name];
    if (name === 'children' || name === 'ref' || value === null || value === undefined) continue;
    structure.push(name);
    if (isLink && name === 'href' && typeof value === 'string') href = value;
    else if (isLink && name.toLowerCase() === 'href') isUnclear = true;
    if (href !== '' && name === 'href' && isPlain) {
      structure.push(HREF);
      leaves.push({ kind: 'href', value: value as string });
      href = leaves.length - 1;
    } else {
      pushValue(structure, name, value);
    }
  }
  let link = linkAround;
  if (link && !INLINE_TAGS.has(tag)) link.isUnclear = true;
  if (isLink) {
    link = { href, from: leaves.length, to: leaves.length, isUnclear };
    tree.links.push(link);
  }
  if (link && ('data-skip-in-text' in props || hasInnerWords(props))) link.isUnclear = true;
  structure.push(CHILDREN);
  const children = walk(tree, props.children as ReactNode, isPlain, link, leafAt);
  structure.push(END);
  if (isLink) link!.to = leaves.length;
  if (!leafAt) return undefined;
  const { children: _, ref: _ref, ...rest } = props;
  const rebuilt = typeof href === 'number' ? { ...rest, href: leafAt(href) } : rest;
  return props.children === undefined
    ? createElement(tag, rebuilt)
    : createElement(tag, rebuilt, children);
}

/** Not where its HTML is one comment, as for Outlook. */
function hasInnerWords({ dangerouslySetInnerHTML: inner }: Record<string, unknown>): boolean {
  if (inner === null || inner === undefined) return false;
  const { __html: html } = inner as { __html?: unknown };
  return !(typeof html === 'string' && /^<!--(?!>|->)(?:[^-]|-(?!-))*-->$/u.test(html));
}

const OBJECT_ATTRIBUTES = new Set(['style', 'dangerouslySetInnerHTML']);

/** Plain values; of the attributes that are objects, what is in them. */
function pushValue(structure: unknown[], name: string, value: unknown): void {
  if (isPlainValue(value)) {
    pushPlain(structure, value);
    return;
  }
  // React would write others as strings, each in its own way.
  if (!OBJECT_ATTRIBUTES.has(name) || Object.getPrototypeOf(value) !== Object.prototype)
    throw new NotPlain(`the attribute ${name} is a ${typeof value}`);
  structure.push(ARRAY);
  for (const part in value as object) {
    const inner = (value as Record<string, unknown>)[part];
    if (inner === null || inner === undefined) continue;
    if (!isPlainValue(inner)) throw new NotPlain(`${name}.${part} is a ${typeof inner}`);
    structure.push(part);
    pushPlain(structure, inner);
  }
  structure.push(END);
}

function isPlainValue(value: unknown): value is string | number | boolean {
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean';
}

function pushPlain(structure: unknown[], value: string | number | boolean): void {
  structure.push(Number.isNaN(value) ? NAN : value); // not equal to itself
}

function contentOf(type: unknown, props: Record<string, unknown>): ReactNode {
  return type === Fragment ? (props.children as ReactNode) : callComponent(type, props);
}

function describe(node: unknown): string {
  return `a ${typeof node} is no markup`;
}
