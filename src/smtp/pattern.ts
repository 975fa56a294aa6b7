// Text with gaps for personal values: what the messages of a send share is prepared once, and each
// message is that with its own values filled in.

/** `fixed[0]`, a value, `fixed[1]`, a value … `fixed[n]`. */
export interface Pattern {
  /** One more than there are gaps. */
  fixed: readonly string[];
  /** Which of the message's values stands in each gap. */
  gaps: readonly number[];
}

export function fill({ fixed, gaps }: Pattern, values: readonly string[]): string {
  let text = fixed[0]!;
  for (let at = 0; at < gaps.length; at++) text += values[gaps[at]!]! + fixed[at + 1]!;
  return text;
}
