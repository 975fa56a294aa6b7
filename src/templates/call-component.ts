// Calls a template's components as React's server renderer would, without React. What only React can serve
// (hooks, contexts, classes, promises) is refused, also where the template catches that: it would show
// something else than in a render.
import * as React from 'react';
import type { ReactNode } from 'react';

/** Only React knows what becomes of it. */
export class NotPlain extends Error {}

const REACT_FORWARD_REF = Symbol.for('react.forward_ref');
const REACT_MEMO = Symbol.for('react.memo');

type Component = (props: object, ref?: unknown) => ReactNode;

/** As React's server renderer does. A component that uses hooks throws: there is nobody to serve them. */
export function callComponent(type: unknown, props: Record<string, unknown>): ReactNode {
  if (typeof type === 'function') {
    if ((type.prototype as { isReactComponent?: unknown } | undefined)?.isReactComponent)
      throw new NotPlain('a component is a class');
    return settled((type as Component)(props));
  }
  const { $$typeof: kind, render, type: inner } = type as Record<string, unknown>;
  if (kind === REACT_MEMO) return callComponent(inner, props);
  if (kind !== REACT_FORWARD_REF) throw new NotPlain('a component is of a special kind');
  const renderForward = render as Component;
  if (!('ref' in props)) return settled(renderForward(props, null));
  const { ref, ...rest } = props;
  return settled(renderForward(rest, ref ?? null));
}

/** A promise's failure is met by React, not here. */
function settled(result: ReactNode): ReactNode {
  if (result instanceof Promise) {
    result.catch(() => undefined);
    throw new NotPlain('a component is asynchronous');
  }
  return result;
}

/**
 * Where React's hooks look for who serves them. While nobody renders there is nobody, and a hook throws,
 * which a template may catch.
 */
const { __CLIENT_INTERNALS_DO_NOT_USE_OR_WARN_USERS_THEY_CANNOT_UPGRADE: internals } =
  React as unknown as Record<string, { H: unknown }>;

/** @throws NotPlain where anything of it has used a hook, caught or not */
export function withoutHooks(work: () => void): void {
  let used = false;
  const before = internals!.H;
  internals!.H = new Proxy(
    {},
    {
      get: () => {
        used = true;
        throw new NotPlain('a component uses a hook');
      },
    },
  );
  try {
    work();
  } finally {
    internals!.H = before;
  }
  if (used) throw new NotPlain('a component uses a hook');
}
