// Preloaded into a process (NODE_OPTIONS=--import=…): its clocks are off by CLOCK_SHIFT_MS, as on a
// machine whose time is not kept. Plain JavaScript with types that Node itself strips.
const shift = Number(process.env.CLOCK_SHIFT_MS ?? 0);
const RealDate = Date;
const realNow = Date.now.bind(Date);

class ShiftedDate extends RealDate {
  constructor(...given: unknown[]) {
    if (given.length === 0) super(realNow() + shift);
    else super(...(given as [number]));
  }

  static override now(): number {
    return realNow() + shift;
  }
}

globalThis.Date = ShiftedDate as DateConstructor;
const realTimeOrigin = performance.timeOrigin;
Object.defineProperty(performance, 'timeOrigin', { get: () => realTimeOrigin + shift });
