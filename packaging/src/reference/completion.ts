import type {
  CommandReference,
  OperandReference,
  OptionReference,
  ProgramReference,
} from '@ivshmem/cli/reference';

// What shell completion offers, for all shells.

/** What a shell offers for a value. */
export type ValueKind =
  | 'file'
  | 'directory'
  | 'user'
  | 'group'
  | 'interface'
  | 'bridge'
  | 'netns'
  | 'none'
  | readonly string[];

/** By what stands for the value in the help. */
const KINDS: Readonly<Record<string, ValueKind>> = {
  path: 'file',
  file: 'file',
  dir: 'directory',
  directory: 'directory',
  user: 'user',
  group: 'group',
  interface: 'interface',
  bridge: 'bridge',
  'name|path': 'netns',
  'address|auto': ['auto'],
};

/** What to offer for an option's value, or for an operand; null if it takes none. */
export function valueKind(of: OptionReference | OperandReference): ValueKind | null {
  if (of.value === null) return null;
  if ('choices' in of && of.choices.length > 0) return of.choices;
  return KINDS[of.value] ?? 'none';
}

/** All options of a command, in the order of its help. */
export const optionsOf = ({ groups }: CommandReference): readonly OptionReference[] =>
  groups.flatMap(({ options }) => options);

/** The last word of a command's name: `net` of `ivshmem net`. */
export const shortName = ({ name }: CommandReference): string => name.slice(name.lastIndexOf(' ') + 1);

/** The name of the shell function for a program. */
export const functionName = ({ name }: ProgramReference): string => `_${name.replace(/\W/g, '_')}`;

/** In single quotes, as all shells read them. */
export const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;

/** The first statement of an option's text, for a line beside its name. */
export function shortText({ text }: OptionReference): string {
  return text.split(/[;:(]|\. /)[0]!.trim();
}
