/** A bar: its length is the median, its whisker the spread. */
export interface Bar {
  readonly label: string;
  readonly median: number;
  readonly minimum: number;
  readonly maximum: number;
  /** Drawn in the colour of what the plot is about. */
  readonly ours: boolean;
}

/** Bars of one unit, on a scale of their own that begins at 0. */
export interface Panel {
  readonly title: string;
  readonly bars: readonly Bar[];
}

// All in pixels.
const WIDTH = 760;
const LABELS = 190;
const VALUES = 90;
const BAR = 16;
const PITCH = 22;
const TITLE = 30;
const GAP = 14;

const STYLE = `text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 }
.value { fill: #57606a }
.bar { fill: #afb8c1 }
.ours { fill: #0969da }
.whisker { stroke: #24292f; stroke-width: 1.5; fill: none }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .value { fill: #9198a1 }
  .bar { fill: #6e7681 }
  .ours { fill: #4493f8 }
  .whisker { stroke: #e6edf3 }
}`;

/** Three significant digits, as far as there is something behind the decimal point. */
export function figure(value: number): string {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

const quote = (text: string) => text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/"/g, '&quot;');
const round = (pixels: number) => Math.round(pixels * 10) / 10;

/** A picture of bars side by side, panel below panel; readable on light and dark ground. */
export function barPlot(name: string, panels: readonly Panel[]): string {
  const parts: string[] = [];
  let y = 0;
  for (const { title, bars } of panels) {
    const longest = Math.max(...bars.map(({ maximum }) => maximum), Number.MIN_VALUE);
    const x = (value: number) => round(LABELS + (value / longest) * (WIDTH - LABELS - VALUES));
    parts.push(`<text class="title" x="0" y="${y + 18}">${quote(title)}</text>`);
    y += TITLE;
    for (const { label, median, minimum, maximum, ours } of bars) {
      const middle = y + BAR / 2;
      const width = round(x(median) - LABELS);
      parts.push(
        `<text x="${LABELS - 8}" y="${middle + 5}" text-anchor="end">${quote(label)}</text>`,
        `<rect class="${ours ? 'ours' : 'bar'}" x="${LABELS}" y="${y}" width="${width}" height="${BAR}"/>`,
        `<path class="whisker" d="M${x(minimum)} ${middle}H${x(maximum)}M${x(minimum)} ${middle - 4}v8M${x(maximum)} ${middle - 4}v8"/>`,
        `<text class="value" x="${x(maximum) + 8}" y="${middle + 5}">${figure(median)}</text>`,
      );
      y += PITCH;
    }
    y += GAP;
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${y}" width="${WIDTH}" height="${y}" role="img" aria-label="${quote(name)}">
<style>${STYLE}</style>
${parts.join('\n')}
</svg>
`;
}
