// Makes the messages of one send. What they share is made once: the template is compiled and the MIME
// structure composed for the first of its kind, and each message is filled in. A mail that has to be
// rendered in full is rendered by a pool of threads.
import { linkTo, unsubscribeHeader, type Linker } from '../recipients/links.ts';
import { listIdOf, messageIdOf } from '../smtp/compose.ts';
import { composeOnce, type MailFrame, type PersonalMail } from '../smtp/compose-once.ts';
import type { Pattern } from '../smtp/pattern.ts';
import { CompiledTemplate, type Filled } from '../templates/compile.ts';
import type { Contexts, Template } from '../templates/registry.ts';
import type { Skeleton } from '../templates/skeleton.ts';
import type { RenderPool } from '../templates/render-pool.ts';
import type { ClaimedMessage } from './claim.ts';
import type { FrozenSend } from './frozen-send.ts';
import type { Turns } from './turns.ts';

export interface Composing {
  linker: Linker;
  turns: Turns;
  /** Where full renders are made. */
  renders: RenderPool;
  /** `full`: nothing is compiled. */
  rendering: 'compiled' | 'full';
}

/** What is a message's own, beside its content. */
type Personal = Omit<PersonalMail, 'subject' | 'values'>;
type ComposeOne = ReturnType<typeof composeOnce>;

export class SendComposer {
  readonly #composing: Composing;
  readonly #send: FrozenSend;
  readonly #template: Template;
  readonly #compiled: CompiledTemplate | undefined;
  readonly #composers = new WeakMap<Skeleton, ComposeOne>();
  readonly #frame: Omit<MailFrame, keyof Skeleton>;

  constructor(composing: Composing, send: FrozenSend, template: Template) {
    this.#composing = composing;
    this.#send = send;
    this.#template = template;
    this.#compiled = composing.rendering === 'full' ? undefined : new CompiledTemplate(template);
    this.#frame = {
      from: { name: send.sender_name, address: send.sender_email },
      replyTo: send.sender_reply_to,
      listId: listIdOf(send.list_key, send.client_key, send.sender_email),
    };
  }

  /** The message as it goes over the wire, before dot-stuffing. @throws what the template throws */
  async compose(message: ClaimedMessage): Promise<Buffer> {
    const { turns, renders } = this.#composing;
    const { personal, contexts } = this.#personalOf(message);
    const compiled = this.#compiled;
    const composed =
      compiled &&
      (await turns.next(async () => {
        const filled = await compiled.fill(contexts);
        return filled && this.#composerOf(filled)({ ...personal, ...filled });
      }));
    if (composed) return composed;
    const { subject, html, text } = await renders.render(this.#template, contexts);
    const composeOne = composeOnce({ ...this.#frame, html: whole(html), text: whole(text) });
    return composeOne({ ...personal, subject, values: [] });
  }

  /** What needs consent can be stopped by the recipient: the headers, and the link for the template. */
  #personalOf(message: ClaimedMessage): { personal: Personal; contexts: Contexts } {
    const { linker } = this.#composing;
    const { client_id, list_id, requires_consent, sender_email, shared_context } = this.#send;
    const about = { client_id, list_id, contact_id: message.contact_id };
    const leave = requires_consent ? ({ purpose: 'unsubscribe', ...about } as const) : undefined;
    return {
      personal: {
        messageId: messageIdOf(message.id, sender_email),
        date: message.claimed_at,
        to: { name: message.name, address: message.email_given },
        ...(leave && { unsubscribe: unsubscribeHeader(linker, leave) }),
      },
      contexts: {
        shared: shared_context,
        recipient: message.context,
        links: {
          ...(leave && { unsubscribe: linkTo(linker, leave) }),
          ...(this.#template.shows.confirm && {
            confirm: linkTo(linker, { purpose: 'confirm', ...about }),
          }),
        },
      },
    };
  }

  #composerOf({ skeleton }: Filled): ComposeOne {
    const known = this.#composers.get(skeleton);
    if (known) return known;
    const made = composeOnce({ ...this.#frame, ...skeleton });
    this.#composers.set(skeleton, made);
    return made;
  }
}

function whole(text: string): Pattern {
  return { fixed: [text], gaps: [] };
}

/** Sends under way at once whose shared parts are kept. */
const MOST_SENDS = 20;

/** The composers of the sends that were delivered last. */
export class SendComposers {
  readonly #composing: Composing;
  readonly #bySend = new Map<string, SendComposer>();

  constructor(composing: Composing) {
    this.#composing = composing;
  }

  of(send: FrozenSend, template: Template): SendComposer {
    const composer = this.#bySend.get(send.id) ?? new SendComposer(this.#composing, send, template);
    this.#bySend.delete(send.id);
    this.#bySend.set(send.id, composer);
    if (this.#bySend.size > MOST_SENDS) {
      const [oldest] = this.#bySend.keys();
      this.#bySend.delete(oldest!);
    }
    return composer;
  }
}
