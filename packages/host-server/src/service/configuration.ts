import { OptionError } from '@ivshmem/linux';
import { groupId, userId } from '@ivshmem/linux/process';
import { allowedBy } from '../server/access.ts';
import { completeSettings, type HostServerSettings } from '../server/options.ts';
import { parseCount, parseMode, parseSize } from './sizes.ts';

/** One server of a configuration. */
export interface LinkConfiguration {
  /** Its unique name in the log, in metrics and across reloads. Default: the path of its socket. */
  readonly name: string;
  readonly settings: HostServerSettings;
  /** Its settings in canonical form: a reload keeps a link whose source has not changed. */
  readonly source: string;
}

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** An error whose message begins with the key. */
const configurationError = (key: string, problem: string) => new OptionError(key, `${key}${problem}`);

/** JSON that is nested too deeply can be parsed, but not written. */
function textOf(value: unknown): string {
  try {
    return JSON.stringify(value);
  } catch {
    return '(nested too deeply)';
  }
}

/** A value in the file with its key. */
class Node {
  readonly key: string;
  readonly value: Json;

  constructor(key: string, value: Json) {
    this.key = key;
    this.value = value;
  }

  fail(expected: string): never {
    const shown = textOf(this.value);
    throw configurationError(
      this.key,
      `${this.key === '' ? '' : ' '}${shown.length > 60 ? `${shown.slice(0, 57)}...` : shown}: must be ${expected}`,
    );
  }

  /** The members of an object; keys must be among `known`. */
  object(known: readonly string[], what: string): Map<string, Node> {
    if (this.value === null || typeof this.value !== 'object' || Array.isArray(this.value)) this.fail(what);
    const members = new Map<string, Node>();
    for (const [name, value] of Object.entries(this.value)) {
      const key = this.key === '' ? name : `${this.key}.${name}`;
      if (!known.includes(name)) {
        throw configurationError(key, `: unknown key: use ${known.join(', ')}`);
      }
      members.set(name, new Node(key, value));
    }
    return members;
  }

  list(what: string): Node[] {
    if (!Array.isArray(this.value)) this.fail(what);
    return this.value.map((value, i) => new Node(`${this.key}[${i}]`, value));
  }

  string(what: string): string {
    return typeof this.value === 'string' && this.value !== '' ? this.value : this.fail(what);
  }

  /** A JSON number, or a string that `parse` accepts. */
  number(parse: (text: string) => number | null, what: string): number {
    if (typeof this.value === 'number') return this.value;
    return (typeof this.value === 'string' ? parse(this.value) : null) ?? this.fail(what);
  }

  account(find: (text: string) => number): number {
    if (typeof this.value !== 'string' && typeof this.value !== 'number') this.fail('a name or a number');
    try {
      return find(String(this.value));
    } catch (error) {
      throw configurationError(this.key, `: ${(error as Error).message}`);
    }
  }
}

/** The keys of a link and the settings they stand for. */
const KEYS = {
  name: undefined,
  socket: 'socketPath',
  mode: 'mode',
  group: 'group',
  allowUids: 'allow',
  allowGids: 'allow',
  sharedMemory: 'sharedMemory',
  size: 'size',
  outputSectionSize: 'outputSectionSize',
  maxPeers: 'maxPeers',
  vectors: 'vectors',
  protocol: 'protocol',
  evictAfter: 'evictAfter',
} as const satisfies Record<string, keyof HostServerSettings | undefined>;

const SIZE = 'a size in bytes, such as 65536 or "64K"';
const MEMORY = '"memfd", {"posix": NAME}, {"directory": PATH} or {"hugePages": SIZE}';

/**
 * Parses a configuration: JSON text `{"links": [{"socket": …}, …]}`, in which only `socket` is required. Checks all values
 * without creating anything. Throws {@link OptionError}, whose `option` is the key, such as `links[2].outputSectionSize`.
 */
export function parseConfiguration(text: string): LinkConfiguration[] {
  let json: Json;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new OptionError('', `not JSON: ${(error as Error).message.replace(/\s+/g, ' ')}`);
  }
  const root = new Node('', json).object(['links'], 'an object with the key "links"');
  const list = root.get('links');
  if (list === undefined) throw configurationError('links', ': missing: must list the servers');
  const nodes = list.list('a list of links');
  const links = nodes.map(parseLink);
  checkUnique(nodes, links, 'name', ({ name }) => name);
  checkUnique(nodes, links, 'socket', ({ settings }) => settings.socketPath);
  checkUnique(nodes, links, 'sharedMemory.posix', ({ settings: { sharedMemory } }) =>
    sharedMemory.kind === 'posix' ? sharedMemory.name.replace(/^\/+/, '') : undefined,
  );
  return links;
}

function parseLink(node: Node): LinkConfiguration {
  const members = node.object(Object.keys(KEYS), 'a link, an object');
  const settings: { -readonly [Key in keyof HostServerSettings]?: HostServerSettings[Key] } = {};
  const access = { uids: [] as number[], gids: [] as number[] };
  let name: string | undefined;
  for (const [key, member] of members) {
    switch (key as keyof typeof KEYS) {
      case 'name':
        name = member.string('a name');
        break;
      case 'socket':
        settings.socketPath = member.string('a path');
        break;
      case 'mode':
        // A JSON number would be decimal, but 660 means octal.
        if (typeof member.value !== 'string') member.fail('permissions in octal, as a string such as "660"');
        settings.mode = member.number(parseMode, 'permissions in octal, as a string such as "660"');
        break;
      case 'group':
        settings.group = member.account(groupId);
        break;
      case 'allowUids':
        access.uids = member.list('a list of users').map((user) => user.account(userId));
        break;
      case 'allowGids':
        access.gids = member.list('a list of groups').map((group) => group.account(groupId));
        break;
      case 'sharedMemory':
        settings.sharedMemory = parseSharedMemory(member);
        break;
      case 'size':
        settings.size = member.number(parseSize, SIZE);
        break;
      case 'outputSectionSize':
        settings.outputSectionSize = member.number(parseSize, SIZE);
        break;
      case 'maxPeers':
        settings.maxPeers = member.number(parseCount, 'a number');
        break;
      case 'vectors':
        settings.vectors = member.number(parseCount, 'a number');
        break;
      case 'protocol':
        settings.protocol = member.number(parseCount, 'a number, such as 1 or "0x8003"');
        break;
      case 'evictAfter':
        settings.evictAfter = member.number(parseCount, 'a number of seconds');
        break;
    }
  }
  if (settings.socketPath === undefined) throw configurationError(`${node.key}.socket`, ': missing');
  // An empty list would accept all clients, which is hardly intended.
  for (const key of ['allowUids', 'allowGids']) {
    const list = members.get(key);
    if (Array.isArray(list?.value) && list.value.length === 0) {
      list.fail('a list that is not empty: omit the key to accept all clients');
    }
  }
  settings.allow = allowedBy(access);
  const complete = checked(node, settings);
  const { allow: _allow, ...plain } = complete;
  return {
    name: name ?? settings.socketPath,
    settings: complete,
    source: JSON.stringify({ ...plain, access }),
  };
}

function parseSharedMemory(node: Node): HostServerSettings['sharedMemory'] {
  if (node.value === 'memfd') return { kind: 'memfd', seal: true };
  const members = [...node.object(['posix', 'directory', 'hugePages'], MEMORY)];
  if (members.length !== 1) node.fail(MEMORY);
  const [key, member] = members[0]!;
  if (key === 'posix') return { kind: 'posix', name: member.string('a name') };
  if (key === 'directory') return { kind: 'directory', path: member.string('a path') };
  return { kind: 'memfd', seal: true, hugePageSize: member.number(parseSize, SIZE) };
}

function checked(node: Node, settings: Partial<HostServerSettings>): HostServerSettings {
  try {
    return completeSettings(settings);
  } catch (error) {
    if (!(error instanceof OptionError)) throw error;
    const key = Object.entries(KEYS).find(([, setting]) => setting === error.option)![0];
    throw configurationError(`${node.key}.${key}`, `: ${error.message}`);
  }
}

function checkUnique(
  nodes: readonly Node[],
  links: readonly LinkConfiguration[],
  key: string,
  identityOf: (link: LinkConfiguration) => string | undefined,
): void {
  const seen = new Map<string, Node>();
  links.forEach((link, i) => {
    const value = identityOf(link);
    if (value === undefined) return;
    const first = seen.get(value);
    if (first !== undefined) {
      throw configurationError(
        `${nodes[i]!.key}.${key}`,
        ` ${JSON.stringify(value)}: already used by ${first.key}`,
      );
    }
    seen.set(value, nodes[i]!);
  });
}
