// What every measure of a run works with.
import type { Process } from '../support/processes.ts';
import type { Sink } from './sink.ts';
import type { Stage } from './stage.ts';

export interface Options {
  /** Of the usual send, of the large one, and of one to warm up with. */
  members: number;
  large: number;
  warmUp: number;
  rounds: number;
}

export interface Bench {
  stage: Stage;
  sink: Sink;
  /** One of our messages. */
  readyMade: { file: string; bytes: number };
  options: Options;
  /** Our process count that was fastest end to end, where that was measured. */
  best?: { processes: number };
  say(line: string): void;
  /** Ended, before the stage is, when the run is interrupted. */
  started(process: Process): void;
}
