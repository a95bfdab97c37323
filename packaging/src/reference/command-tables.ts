import type { CommandReference, OptionReference, ProgramReference } from '@ivshmem/cli/reference';

/** What docs/commands.md says of all commands: a heading for each, and a table of its options. */
export function commandTables(programs: readonly ProgramReference[]): string {
  return programs
    .flatMap((program) => program.commands)
    .map(commandTable)
    .join('\n');
}

function commandTable({ name, description, operands, groups }: CommandReference): string {
  const rows = [
    ...operands
      .filter(({ text }) => text !== '')
      .map(({ value, text }) => [code(value.toUpperCase()), cell(text)]),
    ...groups.flatMap(({ options }) => options.filter(({ names }) => !names.includes('-h')).map(optionRow)),
  ];
  return `## ${code(name)}

${description}

| option | meaning |
|---|---|
${rows.map((row) => `| ${row.join(' | ')} |\n`).join('')}`;
}

function optionRow({ names, value, isValueOptional, text }: OptionReference): string[] {
  const last = names.length - 1;
  const placeholder =
    value === null ? '' : cell(isValueOptional ? `[=${value.toUpperCase()}]` : ` ${value.toUpperCase()}`);
  return [names.map((name, at) => code(`${name}${at === last ? placeholder : ''}`)).join(', '), cell(text)];
}

const code = (text: string) => `\`${text}\``;
/** A bar ends a cell. */
const cell = (text: string) => text.replaceAll('|', '\\|');
