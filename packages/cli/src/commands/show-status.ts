import { printable } from '@ivshmem/linux/process';
import {
  type FoundProcess,
  findProcesses,
  type LinkPart,
  type LinkView,
  linksOf,
  partName,
} from '@ivshmem/monitor';
import { EXIT_FAILURE, EXIT_OK } from '../exit.ts';
import { jsonLine } from '../output/json-line.ts';
import { partFaultText, partStateText } from '../output/part-text.ts';
import { standardOutput } from '../output/standard-output.ts';
import { tableLines } from '../output/table.ts';
import type { StatusOptions } from './status.ts';

/** What `ivshmem status` shows. */
interface Status {
  readonly links: readonly LinkView[];
  /** One line each: what is wrong besides links that are down. */
  readonly problems: readonly string[];
  readonly ok: boolean;
}

/** Shows the links of all processes found, or those that one of the names belongs to. */
export async function showStatus(names: readonly string[], { json }: StatusOptions): Promise<number> {
  const found = await findProcesses();
  const all = linksOf(found);
  const links = names.length === 0 ? all : all.filter((link) => names.some((name) => hasName(link, name)));
  const problems = [
    ...found.processes.flatMap(problemOf),
    ...names
      .filter((name) => !links.some((link) => hasName(link, name)))
      .map((name) => `${name}: no such link`),
  ];
  const ok = problems.length === 0 && links.every(({ up }) => up);
  const status = { links, problems, ok };
  const output = standardOutput();
  if (json) output.write(jsonLine(jsonOf(status, found.hidden)));
  else for (const line of linesOf(status, found.hidden)) output.write(`${line}\n`);
  return ok ? EXIT_OK : EXIT_FAILURE;
}

function hasName({ name, parts }: LinkView, wanted: string): boolean {
  return name === wanted || parts.some(({ part }) => part.socket === wanted || partName(part) === wanted);
}

function problemOf({ name, report, problem }: FoundProcess): string[] {
  if (problem !== null) return [`${name}: ${problem}`];
  return report?.ready ? [] : [`${name}: still starting`];
}

function jsonOf({ links, problems, ok }: Status, hidden: number): object {
  return {
    ok,
    links: links.map(({ name, up, parts }) => ({
      name,
      up,
      parts: parts.map(({ process, part, up }) => {
        const { command, pid } = process.report!;
        return { ...part, up, process: { name: process.name, command, pid, uid: process.uid } };
      }),
    })),
    problems,
    hidden,
  };
}

function linesOf({ links, problems }: Status, hidden: number): string[] {
  const rows = links.flatMap(({ name, parts }) =>
    parts.map((each, at) => [at === 0 ? name : '', ...cellsOf(each)].map(printable)),
  );
  const header = ['LINK', 'PART', 'PROCESS', 'STATE', 'SINCE', 'MTU', 'OFFLOADS', 'FAULTS'];
  const table = rows.length === 0 ? ['no links'] : tableLines([header, ...rows]);
  const reasons = links.flatMap(({ parts }) => parts.flatMap(reasonOf));
  const others =
    hidden > 0 ? [`${hidden} ${hidden === 1 ? 'process' : 'processes'} of other users not shown`] : [];
  return [...table, ...[...reasons, ...problems, ...others].map(printable)];
}

function cellsOf({ process, part }: LinkPart): string[] {
  const since = part.since.slice(0, 19).replace('T', ' ');
  const [mtu, offloads] =
    part.kind === 'interface' ? [String(part.mtu), part.offloads.join(',') || '-'] : ['-', '-'];
  return [
    partName(part),
    process.name,
    partStateText(part),
    since,
    mtu,
    offloads,
    partFaultText(part) || '-',
  ];
}

/** The last line of its log, of a part that is down. */
function reasonOf({ part, up }: LinkPart): string[] {
  if (up || !('log' in part) || part.log === null) return [];
  return [`${partName(part)}: ${part.log.time}: ${part.log.text}`];
}
