import {
  SERVER_EXAMPLES,
  SERVER_NOTES,
  type ServerOption,
  serverOptions,
} from '@ivshmem/host-server/service';
import type { Argument, Command, Option } from 'commander';
import { commands, createProgram } from './program.ts';

// The commands as data, for manual pages, shell completion and docs/commands.md: read from what --help prints.

/** An option. */
export interface OptionReference {
  /** Its names with dashes, such as `-S` and `--socket`. */
  readonly names: readonly string[];
  /** What stands for its value, such as `path`; null if it takes none. */
  readonly value: string | null;
  /** The value may be missing, and is attached with `=`. */
  readonly isValueOptional: boolean;
  /** All values that it accepts; empty: any. */
  readonly choices: readonly string[];
  readonly isRepeatable: boolean;
  /** With the default. */
  readonly text: string;
}

/** What a command takes besides options. */
export interface OperandReference {
  readonly value: string;
  readonly isRequired: boolean;
  readonly isVariadic: boolean;
  readonly text: string;
}

/** Options under a heading; empty for the first ones. */
export interface OptionGroup {
  readonly heading: string;
  readonly options: readonly OptionReference[];
}

/** Text of the help after the options, as {@link parseSections} reads it. */
export interface HelpSection {
  readonly heading: string;
  /** In the order of the help: paragraphs, and lines to be left as they are, which may have a text that says what they are for. */
  readonly parts: readonly HelpPart[];
}

export type HelpPart =
  | { readonly text: string }
  | { readonly lead: string; readonly lines: readonly string[] };

export interface CommandReference {
  /** As it is called: `ivshmem net`. */
  readonly name: string;
  /** In one line; without a full stop. */
  readonly summary: string;
  readonly description: string;
  readonly operands: readonly OperandReference[];
  readonly groups: readonly OptionGroup[];
  readonly sections: readonly HelpSection[];
}

/** A program: itself, and its commands in the order of its help. */
export interface ProgramReference extends CommandReference {
  readonly version: string;
  readonly commands: readonly CommandReference[];
}

/** All programs that are installed. */
export async function programReferences(): Promise<readonly ProgramReference[]> {
  const program = createProgram({});
  const references: CommandReference[] = [];
  for (const [name, { summary, load }] of Object.entries(commands)) {
    (await load())(program, () => {});
    const command = program.commands.find((each) => each.name() === name)!;
    references.push({
      ...(name === 'server' ? serverReference : commandReference(command, `ivshmem ${name}`)),
      summary,
    });
  }
  const version = program.version()!;
  const ivshmem = {
    ...commandReference(program, 'ivshmem'),
    summary: 'Ethernet between virtual machines, containers and their host, through shared memory',
  };
  return [
    { ...ivshmem, version, commands: references },
    { ...originalServerReference, version, commands: [] },
  ];
}

function commandReference(command: Command, name: string): CommandReference {
  const help = command.createHelp();
  return {
    name,
    summary: command.summary(),
    description: command.description(),
    operands: command.registeredArguments.map(operandReference),
    groups: [{ heading: '', options: help.visibleOptions(command).map(optionReference) }],
    sections: parseSections(textAfterOptions(command)),
  };
}

function operandReference(argument: Argument): OperandReference {
  return {
    value: argument.name(),
    isRequired: argument.required,
    isVariadic: argument.variadic,
    text: argument.description,
  };
}

function optionReference(option: Option): OptionReference {
  const { short, long, flags, description, argChoices, defaultValue, defaultValueDescription } = option;
  const value = /[<[](.+?)(\.\.\.)?[>\]]$/.exec(flags)?.[1] ?? null;
  const given = defaultValueDescription ?? (typeof defaultValue === 'string' ? defaultValue : undefined);
  return {
    names: [short, long].filter((name) => name !== undefined),
    value,
    isValueOptional: option.optional,
    choices: argChoices ?? [],
    isRepeatable: /may be repeated/.test(description),
    text: given === undefined ? description : `${description} (default: ${given})`,
  };
}

/** What addHelpText has added to a command. */
function textAfterOptions(command: Command): string {
  let text = '';
  command.configureOutput({
    writeOut: (part) => {
      text += part;
    },
  });
  command.outputHelp();
  return text.slice(command.helpInformation().length);
}

/**
 * Reads help text: a line "Heading:" begins a section, "Heading: text" is one of its own. Lines that are indented by four
 * or more spaces are left as they are, and belong to the line before; a section without such lines is left as it is.
 */
export function parseSections(text: string): readonly HelpSection[] {
  const sections: HelpSection[] = [];
  for (const paragraph of text.split(/\n(?=\S[^\n]*:(?:\n|$)|\S[^\n:]*: )/)) {
    const [, heading, first, rest] = /^([A-Z][^:\n]*):(?: ([^\n]+))?\n?(.*)$/s.exec(paragraph.trim()) ?? [];
    if (heading === undefined) {
      if (paragraph.trim() !== '') sections.push({ heading: '', parts: [{ text: joined(paragraph) }] });
    } else if (first !== undefined) {
      sections.push({ heading, parts: [{ text: joined(`${first} ${rest}`) }] });
    } else
      sections.push({ heading, parts: sectionParts(rest!.split('\n').filter((line) => line.trim() !== '')) });
  }
  return sections;
}

const joined = (text: string) => text.trim().replace(/\s+/g, ' ');

function sectionParts(lines: readonly string[]): readonly HelpPart[] {
  if (!lines.some((line) => /^ {4}/.test(line)))
    return [{ lead: '', lines: lines.map((line) => line.slice(2)) }];
  const parts: { lead: string; lines: string[] }[] = [];
  for (const line of lines) {
    if (/^ {4}/.test(line)) parts.at(-1)!.lines.push(line.slice(4));
    else parts.push({ lead: line.trim(), lines: [] });
  }
  return parts;
}

function serverOption({ name, kind, value, text }: ServerOption): OptionReference {
  return {
    names: [name],
    value: kind === 'flag' ? null : value.toLowerCase(),
    isValueOptional: kind === 'optional',
    choices: [],
    isRepeatable: /may be repeated/.test(text),
    text,
  };
}

const groupsOf = (dialect: Parameters<typeof serverOptions>[0]) =>
  serverOptions(dialect).map(({ heading, options }) => ({ heading, options: options.map(serverOption) }));

const serverReference: CommandReference = {
  name: 'ivshmem server',
  summary: '',
  description: `Runs host servers: each provides its peers with shared memory and doorbells.${joinedNotes()}`,
  operands: [],
  groups: groupsOf('extended'),
  sections: parseSections(`${exitStatus()}\nExamples:\n${SERVER_EXAMPLES}`),
};

const originalServerReference: CommandReference = {
  name: 'ivshmem2-server',
  summary: 'ivshmem v2 host server with the options of the original one',
  description: `Runs a host server, which provides its peers with shared memory and doorbells. It has the options of the original ivshmem2-server, and no others; ivshmem server has more.${joinedNotes()}`,
  operands: [],
  groups: groupsOf('original'),
  sections: parseSections(exitStatus()),
};

/** The notes but for the last line. */
function joinedNotes(): string {
  return ` ${joined(SERVER_NOTES.replace(exitStatus(), ''))}`;
}

function exitStatus(): string {
  return SERVER_NOTES.slice(SERVER_NOTES.indexOf('Exit status:'));
}
