import { isUp, linkName, type PartReport } from './report.ts';
import type { FoundProcess, FoundProcesses } from './status.ts';

/** A part of a link, and the process that runs it. */
export interface LinkPart {
  readonly process: FoundProcess;
  readonly part: PartReport;
  readonly up: boolean;
}

/** A link with all of its parts that were found, in whatever processes. */
export interface LinkView {
  readonly name: string;
  /** All of its parts are up. */
  readonly up: boolean;
  readonly parts: readonly LinkPart[];
}

/** Puts the parts of all processes together, link by link, in the order in which they were found. */
export function linksOf({ processes }: FoundProcesses): LinkView[] {
  const all = processes.flatMap((process) => {
    return (process.report?.parts ?? []).map((part) => ({ process, part, up: isUp(part) }));
  });
  const names = new Map<string, string>();
  for (const { part } of all) {
    if (part.link !== null && part.socket !== null) names.set(part.socket, part.link);
  }
  const links = new Map<string, LinkPart[]>();
  for (const each of all) {
    const name = (each.part.socket === null ? undefined : names.get(each.part.socket)) ?? linkName(each.part);
    const parts = links.get(name) ?? [];
    parts.push(each);
    links.set(name, parts);
  }
  return [...links].map(([name, parts]) => ({ name, up: parts.every(({ up }) => up), parts }));
}
