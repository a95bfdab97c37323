import {
  controlSockets,
  findProcesses,
  type LinkView,
  linksOf,
  partName,
  socketName,
} from '@ivshmem/monitor';

/** A link that can be captured. */
export interface FoundLink {
  readonly name: string;
  /** Socket of its host server. */
  readonly socket: string;
  /** Control socket of the process that runs the host server. */
  readonly server: string;
  /** Its ends with counters of their own. */
  readonly ends: readonly FoundEnd[];
}

/** An interface at an end of a link. */
export interface FoundEnd {
  /** Its ID as a peer. */
  readonly id: number;
  readonly tap: string;
  /** Control socket of its process. */
  readonly control: string;
}

/** All links of this machine whose host server this user may ask. */
export async function findLinks(): Promise<FoundLink[]> {
  const paths = new Map(controlSockets().map(({ name, path }) => [name, path]));
  return linksOf(await findProcesses()).flatMap((link) => foundLink(link, paths));
}

function foundLink({ name, parts }: LinkView, paths: ReadonlyMap<string, string>): FoundLink[] {
  const control = (process: { readonly name: string }) => paths.get(process.name) ?? '';
  const ends = parts.flatMap(({ process, part }) =>
    part.kind === 'interface' ? [{ id: part.id, tap: part.tap, control: control(process) }] : [],
  );
  return parts.flatMap(({ process, part }) =>
    part.kind === 'server' && part.protocol === ETHERNET && part.socket !== null
      ? [{ name, socket: part.socket, server: control(process), ends }]
      : [],
  );
}

/** Source: specification, "Protocols": virtual peer-to-peer Ethernet. */
const ETHERNET = 0x0001;

/** The link with this name, interface or socket. Throws an Error of one line if there is none, or more than one. */
export async function findLink(wanted: string): Promise<FoundLink> {
  const paths = new Map(controlSockets().map(({ name, path }) => [name, path]));
  const views = linksOf(await findProcesses());
  const named = views.filter(
    ({ name, parts }) =>
      name === wanted ||
      parts.some(({ part }) => part.socket === socketName(wanted) || partName(part) === wanted),
  );
  const found = named.flatMap((link) => foundLink(link, paths));
  if (found.length === 1) return found[0]!;
  const others = views.flatMap((link) => foundLink(link, paths)).map(({ name }) => name);
  const known =
    others.length === 0 ? 'no running host server for Ethernet was found' : `there are ${others.join(', ')}`;
  if (found.length > 1) {
    throw new Error(
      `${wanted}: several links have this name (${found.map(({ socket }) => socket).join(', ')}): give the socket`,
    );
  }
  if (named.length > 0) {
    throw new Error(
      `${wanted}: its host server was not found: run this as its user, or as root, on the host that it runs on`,
    );
  }
  throw new Error(`${wanted}: no such link: ${known}; "ivshmem status" shows all of them`);
}
