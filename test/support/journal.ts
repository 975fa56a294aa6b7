// What a mail server has accepted, by message and recipient: the other side of the books, against
// which ours are held.

/** Our Message-ID is `<the message's id@domain>`, the same at every try. */
const MESSAGE_ID = /^message-id:\s*<([^@>]+)@[^>]+>/imu;

export class Journal {
  /** Accepted (message, recipient) pairs, repeated ones included. */
  accepted = 0;
  readonly #counts = new Map<string, number>();

  /** Notes a message as accepted for its recipients; `raw` needs no more than its headers. */
  add(raw: string, recipients: readonly string[]): void {
    const id = MESSAGE_ID.exec(raw)?.[1];
    if (!id) throw new Error('a message without a Message-ID');
    for (const address of recipients) {
      const key = keyOf(id, address);
      this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1);
      this.accepted += 1;
    }
  }

  /** How often the message was accepted for the recipient. */
  count(messageId: string, address: string): number {
    return this.#counts.get(keyOf(messageId, address)) ?? 0;
  }
}

function keyOf(messageId: string, address: string): string {
  return `${messageId} ${address.toLowerCase()}`;
}
