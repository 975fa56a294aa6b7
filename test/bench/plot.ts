// Mails per second over time, as an SVG: the runs of one size side by side, and below them the large one.
import { scaleLinear, type ScaleLinear } from 'd3-scale';
import { curveMonotoneX, line } from 'd3-shape';

/** Mails are counted in each quarter of a second. */
export const TICK_SECONDS = 0.25;

export interface Series {
  name: string;
  panel: 'side by side' | 'large';
  /** Mails in each tick. */
  ticks: number[];
}

type Point = [seconds: number, rate: number];
type Scale = ScaleLinear<number, number>;

const WIDTH = 960;
const HEIGHT = 360;
const MARGIN = { top: 40, right: 280, bottom: 40, left: 70 };
/** Of a panel: longer runs are averaged over more ticks. */
const MOST_POINTS = 120;
const COLORS = ['#0b6e99', '#d9730d', '#6940a5', '#448361', '#d44c47', '#787774'];

export function plot(series: readonly Series[]): string {
  const panels = (['side by side', 'large'] as const)
    .map((panel) => series.filter((one) => one.panel === panel))
    .filter((members) => members.length > 0);
  const drawn = panels.map(
    (members, index) => `<g transform="translate(0 ${index * HEIGHT})">${drawPanel(members)}</g>`,
  );
  const height = HEIGHT * panels.length;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" font-family="system-ui, sans-serif" font-size="12">
<rect width="100%" height="100%" fill="white"/>
${drawn.join('\n')}
</svg>
`;
}

function drawPanel(series: readonly Series[]): string {
  const points = series.map(({ ticks }) => pointsOf(ticks));
  const all = points.flat();
  const x = scaleLinear(
    [0, Math.max(...all.map(([seconds]) => seconds))],
    [MARGIN.left, WIDTH - MARGIN.right],
  );
  const y = scaleLinear(
    [0, Math.max(...all.map(([, rate]) => rate))],
    [HEIGHT - MARGIN.bottom, MARGIN.top],
  ).nice();
  const path = line<Point>()
    .x(([seconds]) => x(seconds))
    .y(([, rate]) => y(rate))
    .curve(curveMonotoneX);
  const drawn = series.map(({ name }, index) => {
    const color = COLORS[index % COLORS.length]!;
    const at = MARGIN.top + 20 * index;
    const right = WIDTH - MARGIN.right + 16;
    return `<path d="${path(points[index]!)}" fill="none" stroke="${color}" stroke-width="2"/>
<path d="M${right} ${at}h18" stroke="${color}" stroke-width="3"/><text x="${right + 24}" y="${at + 4}">${escape(name)}</text>`;
  });
  return `<text x="${MARGIN.left}" y="20" font-weight="600">mails per second over seconds</text>
${axes(x, y)}
${drawn.join('\n')}`;
}

function axes(x: Scale, y: Scale): string {
  const bottom = HEIGHT - MARGIN.bottom;
  const below = x
    .ticks(10)
    .map((tick) => `<text x="${x(tick)}" y="${bottom + 18}" text-anchor="middle">${tick}</text>`);
  const beside = y
    .ticks(6)
    .map(
      (tick) =>
        `<path d="M${MARGIN.left} ${y(tick)}H${WIDTH - MARGIN.right}" stroke="#ddd"/>` +
        `<text x="${MARGIN.left - 8}" y="${y(tick) + 4}" text-anchor="end">${tick.toLocaleString('en')}</text>`,
    );
  return [...below, ...beside].join('\n');
}

/** Each at the middle of the ticks it is the mean of. */
function pointsOf(ticks: readonly number[]): Point[] {
  const size = Math.ceil(ticks.length / MOST_POINTS);
  const points: Point[] = [];
  for (let at = 0; at < ticks.length; at += size) {
    const some = ticks.slice(at, at + size);
    const mails = some.reduce((sum, one) => sum + one, 0);
    points.push([(at + some.length / 2) * TICK_SECONDS, mails / (some.length * TICK_SECONDS)]);
  }
  return points;
}

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}
