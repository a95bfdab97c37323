import { judge } from './goals.ts';
import { machineText } from './machine.ts';
import type { Measurement, PartResult, Results } from './results.ts';
import { type Figure, ratios, summarise } from './statistics.ts';
import { type Bar, barPlot, figure, type Panel } from './svg.ts';

/** Whose figures the others are compared with. */
const OURS = 'ivshmem';

/** What is made of the results of benchmarks: contents of documents, and pictures by their names. */
export interface Report {
  readonly performance: string;
  readonly readme: string;
  readonly pictures: ReadonlyMap<string, string>;
}

/** Replaces what the documents have between their marks. Throws Error where a mark is missing. */
export function makeReport(results: Results, performance: string, readme: string): Report {
  const pictures = new Map<string, string>();
  let page = performance;
  page = between(page, 'goals', goalTable(results));
  for (const [, name] of performance.matchAll(/<!-- generated: ([\w-]+) -->/g)) {
    const result = results.get(name!);
    page = between(page, `generated: ${name}`, result === undefined ? missing(name!) : section(result));
    if (result !== undefined) pictures.set(`${name}.svg`, barPlot(name!, panelsOf(result.measurements)));
  }
  return { performance: page, readme: between(readme, 'output: bench', summary(results)), pictures };
}

function between(document: string, mark: string, text: string): string {
  const pattern = new RegExp(`(<!-- ${mark} -->\n).*?(<!-- end -->)`, 's');
  if (!pattern.test(document)) throw new Error(`there is no "<!-- ${mark} -->" … "<!-- end -->"`);
  return document.replace(pattern, (_whole, begin, end) => `${begin}${text}\n${end}`);
}

const missing = (name: string) =>
  `Not measured yet: \`npm run bench -- ${name}\`, then \`npm run performance\`.`;

function section(result: PartResult): string {
  const { part, date, command, machine, measurements, omitted = [] } = result;
  const others = subjectsOf(measurements).filter((subject) => subject !== OURS);
  const compared =
    others.length === 0 ? [] : ['', 'Ratio ivshmem : other, per round:', '', ratioTable(measurements)];
  return [
    `\`${command}\`, ${date.slice(0, 10)}, on ${machineText(machine)}. Median (minimum … maximum).`,
    '',
    figureTable(measurements),
    ...compared,
    ...omitted.flatMap((line) => ['', `Without ${line}`]),
    '',
    `![${part}](performance/${part}.svg)`,
  ].join('\n');
}

/** In their first order. */
function subjectsOf(measurements: readonly Measurement[]): string[] {
  return [...new Set(measurements.map(({ subject }) => subject))];
}

function rowsOf(measurements: readonly Measurement[]): Map<string, Measurement[]> {
  const rows = new Map<string, Measurement[]>();
  for (const measurement of measurements) {
    const row = rows.get(measurement.what);
    if (row === undefined) rows.set(measurement.what, [measurement]);
    else row.push(measurement);
  }
  return rows;
}

const spread = ({ median, minimum, maximum }: Figure) =>
  `${figure(median)} (${figure(minimum)} … ${figure(maximum)})`;

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [line(head), `|${'---|'.repeat(head.length)}`, ...rows.map(line)].join('\n');
}

function figureTable(measurements: readonly Measurement[]): string {
  const subjects = subjectsOf(measurements);
  const rows = [...rowsOf(measurements)].map(([what, row]) => [
    `${what}, ${row[0]!.unit}`,
    ...subjects.map((subject) => {
      const found = row.find((measurement) => measurement.subject === subject);
      return found === undefined ? '–' : spread(summarise(found.values));
    }),
  ]);
  return table(['', ...subjects], rows);
}

function ratioTable(measurements: readonly Measurement[]): string {
  const others = subjectsOf(measurements).filter((subject) => subject !== OURS);
  const rows = [...rowsOf(measurements)].map(([what, row]) => {
    const ours = row.find(({ subject }) => subject === OURS);
    return [
      what,
      ...others.map((subject) => {
        const other = row.find((measurement) => measurement.subject === subject);
        // Nothing has a ratio to 0.
        if (ours === undefined || other === undefined || other.values.includes(0)) return '–';
        return spread(ratios(ours.values, other.values));
      }),
    ];
  });
  return table(['', ...others], rows);
}

function goalTable(results: Results): string {
  const rows = judge(results).map(({ goal, found, isMet }) => [
    goal,
    spread(found),
    isMet ? 'yes' : '**no**',
  ]);
  return rows.length === 0 ? 'Nothing was measured yet.' : table(['goal', 'found', 'met'], rows);
}

function panelsOf(measurements: readonly Measurement[]): Panel[] {
  return [...rowsOf(measurements)].map(([what, row]) => ({
    title: `${what}, ${row[0]!.unit}`,
    bars: row.map(({ subject, values }): Bar => {
      return { label: subject, ...summarise(values), ours: subject.startsWith(OURS) };
    }),
  }));
}

/** The rows of {@link summary}: the extremes of frame size and MTU. */
const IN_SUMMARY = /64-byte|1514-byte|MTU 1500$|MTU 65521$|idle, p50$|idle, p99$/;

/** What README shows: ours beside the kernel's own cable and beside C. */
function summary(results: Results): string {
  const rows: string[][] = [];
  for (const part of ['tap', 'latency', 'rings']) {
    for (const [what, row] of rowsOf(results.get(part)?.measurements ?? [])) {
      const of = (...subjects: string[]) => row.find(({ subject }) => subjects.includes(subject));
      const ours = of(OURS);
      if (ours === undefined || !IN_SUMMARY.test(what)) continue;
      const cell = (other: Measurement | undefined) => {
        return other === undefined ? '–' : figure(ratios(ours.values, other.values).median);
      };
      const name = part === 'rings' ? `rings alone, ${what}` : what;
      rows.push([
        name,
        ours.unit,
        spread(summarise(ours.values)),
        cell(of('veth')),
        cell(of('C', 'C, batched')),
      ]);
    }
  }
  const result = results.get('tap') ?? results.get('rings');
  if (rows.length === 0 || result === undefined) return missing('tap rings');
  return [
    `Measured on ${machineText(result.machine)}. Median (minimum … maximum), and the ratio to a veth pair and to the same in C.`,
    '',
    table(['', '', 'this', 'ratio to veth', 'ratio to C'], rows),
  ].join('\n');
}
