// A template compiled while a send is delivered. Its own code runs for every member, down to HTML elements
// (element-tree.ts); React's output and the text made of it are needed once for each structure that
// occurs, with marks in the places of the leaves that differ between members, and a message is that with
// its leaves filled in. So no condition, loop or arithmetic on personal values can make a difference that
// goes unseen: it shows in the structure or in a leaf. What is filled in equals a full render byte for
// byte; a member for whom that is not certain gets the full render.
import type { ReactNode } from 'react';
import type { TemplateDefinition } from './define.ts';
import { readTree, type ElementTree, type Leaf, type Link } from './element-tree.ts';
import type { Contexts } from './registry.ts';
import { headerText } from './render.ts';
import { escapeHtml, makeSkeleton, type Found, type Skeleton } from './skeleton.ts';

export interface Filled {
  skeleton: Skeleton;
  /** Of each personal leaf the value as it is, then escaped for HTML. */
  values: readonly string[];
  subject: string;
}

interface Shape extends Omit<Found, 'values'> {
  /** Undefined where marks do not come out as values do. */
  skeleton: Skeleton | undefined;
}

/** Structures of one send that are kept: a mail of a further one gets the full render. */
const MOST_SHAPES = 32;
/** html-to-text cuts documents of more than 16 million characters; escaping makes one up to six. */
const LONGEST_VALUES = 1_000_000;

export class CompiledTemplate {
  readonly #template: TemplateDefinition;
  readonly #shapes: Shape[] = [];
  #compiling: Promise<void> | undefined;

  constructor(template: TemplateDefinition) {
    this.#template = template;
  }

  /**
   * Undefined where only a full render shows what the mail is. The shared context is always the same. Both
   * contexts are frozen: a template that changes them gives something else each time.
   */
  async fill({ shared, recipient, links = {} }: Contexts): Promise<Filled | undefined> {
    const props = freeze({ shared, recipient, links });
    const markup = () => this.#template.component(props);
    let tree: ElementTree;
    let subject: string;
    try {
      tree = readTree(markup);
      subject = headerText(this.#template.subject(props));
    } catch {
      return undefined; // the full render says what is wrong, or does what cannot be done here
    }
    for (;;) {
      const at = this.#shapes.findIndex((one) => isSameStructure(one.tree, tree));
      const shape = this.#shapes[at];
      if (shape ? !shape.skeleton : this.#shapes.length === MOST_SHAPES) return undefined;
      const personal = shape ? personalLeaves(shape, tree) : [];
      const known = personal === shape?.personal;
      const links = known ? shape.links : linksWith(tree, personal);
      const values = valuesOf(tree.leaves, personal, links);
      if (!values) return undefined;
      if (known) return { skeleton: shape.skeleton!, values, subject };
      this.#compiling ??= this.#compile(at, { tree, personal, links, values }, markup).finally(
        () => (this.#compiling = undefined),
      );
      await this.#compiling;
    }
  }

  async #compile(at: number, found: Found, markup: () => ReactNode): Promise<void> {
    const skeleton = await makeSkeleton(markup(), found).catch(() => undefined);
    const { tree, personal, links } = found;
    this.#shapes.splice(at < 0 ? this.#shapes.length : at, 1, { tree, personal, links, skeleton });
  }
}

function freeze<Value>(value: Value): Value {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value;
  for (const inner of Object.values(value)) freeze(inner);
  return Object.freeze(value);
}

function isSameStructure({ structure: a }: ElementTree, { structure: b }: ElementTree): boolean {
  if (a.length !== b.length) return false;
  for (let at = 0; at < a.length; at++) if (a[at] !== b[at]) return false;
  return true;
}

/** With those that differ here for the first time; the very same array where none do. */
function personalLeaves({ tree, personal }: Shape, { leaves }: ElementTree): readonly number[] {
  let next = 0;
  let added: number[] | undefined;
  for (const [at, { value }] of leaves.entries()) {
    if (personal[next] === at) next += 1;
    else if (value !== tree.leaves[at]!.value) (added ??= []).push(at);
  }
  return added ? [...personal, ...added].sort((a, b) => a - b) : personal;
}

function linksWith({ links }: ElementTree, personal: readonly number[]): Link[] {
  return links.filter(({ href, from, to }) =>
    personal.some((leaf) => leaf === href || (leaf >= from && leaf < to)),
  );
}

/** Undefined where a value could do more to the mail than to stand in it. */
function valuesOf(
  leaves: readonly Leaf[],
  personal: readonly number[],
  links: readonly Link[],
): string[] | undefined {
  const values: string[] = [];
  let length = 0;
  for (const at of personal) {
    const leaf = leaves[at]!;
    if (!isTame(leaf)) return undefined;
    length += leaf.value.length;
    values.push(leaf.value, escapeHtml(leaf.value));
  }
  if (length > LONGEST_VALUES || links.some((link) => saysItsTarget(link, leaves)))
    return undefined;
  return values;
}

// Blanks at its ends can come to stand at the end of a line, where the text part drops them; U+0001 is
// what html-to-text takes for a blank here, and white space of any kind alone is left out of lists.
const UNTAME_TEXT = /^ | $|^\s*$|[\u0000-\u001f\u2028\u2029]/u;
/** Other schemes are what React replaces (javascript:). */
const TAME_HREF = /^(?:https?|mailto|tel):[^\s\u0000-\u001f]*$/iu;

function isTame({ kind, value }: Leaf): boolean {
  if (!value.isWellFormed()) return false;
  return kind === 'text' ? !UNTAME_TEXT.test(value) : TAME_HREF.test(value);
}

/** The text part leaves the target out where a link's words are just that (or either is not clear). */
function saysItsTarget({ href, from, to, isUnclear }: Link, leaves: readonly Leaf[]): boolean {
  if (isUnclear || (typeof href === 'number' && !isTame(leaves[href]!))) return true;
  const target = typeof href === 'number' ? leaves[href]!.value : href;
  let words = '';
  for (let at = from; at < to; at++) if (leaves[at]!.kind === 'text') words += leaves[at]!.value;
  return words === target || `mailto:${words}` === target;
}
