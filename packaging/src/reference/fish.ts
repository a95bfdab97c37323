import type { CommandReference, OptionReference, ProgramReference } from '@ivshmem/cli/reference';
import { optionsOf, shortName, shortText, type ValueKind, valueKind } from './completion.ts';

/** Completion for fish. */
export function fishCompletion(program: ProgramReference): string {
  const { name, commands } = program;
  const complete = (...words: string[]) => `complete -c ${name} ${words.join(' ')}\n`;
  const isCommand = (which: string) => ['-n', quoted(`__fish_seen_subcommand_from ${which}`)];
  const first = commands.length === 0 ? [] : ['-n', '__fish_use_subcommand'];
  const rows = [
    ...commands,
    ...(commands.length > 0 ? [{ name: 'help', summary: 'show the help of a command' }] : []),
  ];
  return [
    `# fish completion of ${name}, generated from its commands\n`,
    complete('-f'),
    ...optionsOf(program).map((option) => complete(...first, ...optionWords(option))),
    ...rows.map((row) =>
      complete(...first, '-a', shortName(row as CommandReference), '-d', quoted(row.summary)),
    ),
    ...commands.flatMap((command) => [
      ...optionsOf(command).map((option) =>
        complete(...isCommand(shortName(command)), ...optionWords(option)),
      ),
      ...command.operands.map((operand) =>
        complete(...isCommand(shortName(command)), ...values(valueKind(operand)!)),
      ),
    ]),
    ...(commands.length > 0
      ? [complete(...isCommand('help'), '-a', quoted(commands.map(shortName).join(' ')))]
      : []),
  ].join('');
}

function optionWords(option: OptionReference): string[] {
  const kind = valueKind(option);
  const names = option.names.flatMap((name) =>
    name.startsWith('--') ? ['-l', name.slice(2)] : ['-s', name.slice(1)],
  );
  // Required; -x: and no files.
  const takesFiles = kind === 'file' || kind === 'netns';
  const needed = kind === null || option.isValueOptional ? [] : [takesFiles ? '-r' : '-x'];
  return [...names, ...needed, ...(kind === null ? [] : values(kind)), '-d', quoted(shortText(option))];
}

/** In single quotes, as fish reads them. */
const quoted = (text: string) => `'${text.replace(/[\\']/g, '\\$&')}'`;

/** What fish offers for a value, instead of files. */
function values(kind: ValueKind): string[] {
  switch (kind) {
    case 'none':
      return [];
    case 'file':
    case 'directory':
      return kind === 'file' ? ['-F'] : ['-a', quoted('(__fish_complete_directories)')];
    case 'user':
      return ['-a', quoted('(__fish_complete_users)')];
    case 'group':
      return ['-a', quoted('(__fish_complete_groups)')];
    case 'interface':
      return ['-a', quoted('(command ls /sys/class/net)')];
    case 'bridge':
      return ['-a', quoted("(string replace -r '.*/(.*)/bridge' '$1' /sys/class/net/*/bridge)")];
    case 'netns':
      return ['-F', '-a', quoted('(command ls /run/netns 2> /dev/null)')];
    default:
      return ['-a', quoted(kind.join(' '))];
  }
}
