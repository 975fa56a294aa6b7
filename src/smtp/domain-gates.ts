// How many messages go to one recipient domain at once, through one mail server, in this process. What
// finds the gate full is put back and told when its turn comes: by how long mail to the domain takes
// and how many were told before it, so that a long queue does not come back all at once, every second.

/** Seconds that one message takes, until the first was timed. */
const FIRST_GUESS = 0.5;
const LONGEST_WAIT = 60;

interface Gate {
  inside: number;
  /** Of recent messages, in seconds. */
  duration: number;
  /** Until when the places are promised, in monotonic milliseconds. */
  promisedUntil: number;
}

export class DomainGates {
  readonly #most: number;
  readonly #gates = new Map<string, Gate>();

  constructor(most: number) {
    this.#most = most;
  }

  /** Enters all gates or none; `leave` is to be called after the message. */
  enter(domains: readonly string[]): { leave: () => void } | { waitSeconds: number } {
    const gates = domains.map((domain) => this.#gateOf(domain));
    const full = gates.find((gate) => gate.inside >= this.#most);
    if (full) return { waitSeconds: this.#promise(full) };
    for (const gate of gates) gate.inside += 1;
    const entered = performance.now();
    return {
      leave: () => {
        for (const [index, gate] of gates.entries()) {
          gate.inside -= 1;
          gate.duration = 0.8 * gate.duration + (0.2 * (performance.now() - entered)) / 1000;
          if (gate.inside === 0 && gate.promisedUntil < performance.now())
            this.#gates.delete(domains[index]!);
        }
      },
    };
  }

  #promise(gate: Gate): number {
    const now = performance.now();
    const step = (gate.duration / this.#most) * 1000;
    gate.promisedUntil = Math.max(gate.promisedUntil, now + gate.duration * 1000) + step;
    return Math.min((gate.promisedUntil - now) / 1000, LONGEST_WAIT);
  }

  #gateOf(domain: string): Gate {
    let gate = this.#gates.get(domain);
    if (!gate) {
      gate = { inside: 0, duration: FIRST_GUESS, promisedUntil: -Infinity };
      this.#gates.set(domain, gate);
    }
    return gate;
  }
}
