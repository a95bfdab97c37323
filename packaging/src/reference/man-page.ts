import type {
  CommandReference,
  HelpPart,
  HelpSection,
  OptionReference,
  ProgramReference,
} from '@ivshmem/cli/reference';

/** The file name of a command's page, without the section: `ivshmem-net`. */
export const pageName = ({ name }: CommandReference): string => name.replaceAll(' ', '-');

/** The manual page of a command or program, for man(7). */
export function manPage(command: CommandReference, program: ProgramReference, date: Date): string {
  const { name, summary, description, operands, groups, sections } = command;
  const day = date.toISOString().slice(0, 10);
  const hasCommands = command === program && program.commands.length > 0;
  const synopsis = [
    bold(name),
    `[${italic('OPTION')}]...`,
    ...(hasCommands ? [italic('COMMAND'), `[${italic('ARGUMENT')}]...`] : []),
    ...operands.map(({ value, isRequired, isVariadic }) => {
      const text = `${italic(value.toUpperCase())}${isVariadic ? '...' : ''}`;
      return isRequired ? text : `[${text}]`;
    }),
  ].join(' ');
  return [
    `.\\" Generated from the command's help.`,
    `.TH ${pageName(command).toUpperCase()} 1 ${day} "ivshmem ${program.version}" "User Commands"`,
    heading('NAME'),
    `${escaped(pageName(command))} \\- ${escaped(summary)}`,
    heading('SYNOPSIS'),
    synopsis,
    heading('DESCRIPTION'),
    escaped(description),
    ...(hasCommands ? [heading('COMMANDS'), ...program.commands.flatMap(commandEntry)] : []),
    ...(operands.some(({ text }) => text !== '') ? [heading('OPERANDS')] : []),
    ...operands
      .filter(({ text }) => text !== '')
      .flatMap(({ value, text }) => ['.TP', italic(value.toUpperCase()), sentence(text)]),
    heading('OPTIONS'),
    ...groups.flatMap(({ heading: title, options }) => [
      ...(title === '' ? [] : [`.SS ${escaped(title)}`]),
      ...options.flatMap(optionEntry),
    ]),
    ...sections.flatMap(section),
    heading('SEE ALSO'),
    seeAlso(command, program),
    '',
  ].join('\n');
}

const heading = (text: string) => `.SH ${text}`;
const bold = (text: string) => `\\fB${escaped(text)}\\fR`;
const italic = (text: string) => `\\fI${escaped(text)}\\fR`;

/** Dashes that are typed, backslashes, and lines that begin like a request. */
function escaped(text: string): string {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replace(/^(?=['.])/gm, '\\&');
}

/** A text as --help has it, as a sentence. */
function sentence(text: string): string {
  return escaped(`${text[0]!.toUpperCase()}${text.slice(1)}${text.endsWith('.') ? '' : '.'}`);
}

function optionEntry({ names, value, isValueOptional, choices, text }: OptionReference): string[] {
  const placeholder = value === null ? '' : italic(value.toUpperCase());
  const forms = names.map((name) => {
    if (value === null) return bold(name);
    if (isValueOptional) return `${bold(name)}[=${placeholder}]`;
    return `${bold(name)} ${placeholder}`;
  });
  const lines = ['.TP', forms.join(', '), sentence(text)];
  return choices.length === 0 ? lines : [...lines, `One of ${choices.map(bold).join(', ')}.`];
}

function commandEntry(command: CommandReference): string[] {
  return ['.TP', `${bold(pageName(command))}(1)`, sentence(command.summary)];
}

function section({ heading: title, parts }: HelpSection): string[] {
  const name = /^Exit (codes|status)$/.test(title) ? 'EXIT STATUS' : title.toUpperCase();
  const lines = parts.flatMap(part);
  // A heading begins a paragraph.
  return [heading(escaped(name || 'NOTES')), ...(lines[0] === '.PP' ? lines.slice(1) : lines)];
}

function part(content: HelpPart): string[] {
  if ('text' in content) return ['.PP', sentence(content.text)];
  const { lead, lines } = content;
  const verbatim = ['.EX', ...lines.map(escaped), '.EE'];
  if (lead === '') return ['.PP', ...verbatim];
  return ['.PP', escaped(lead), ...(lines.length > 0 ? ['.PP', '.RS 4', ...verbatim, '.RE'] : [])];
}

function seeAlso(command: CommandReference, program: ProgramReference): string {
  const others = [program, ...program.commands].filter((other) => other !== command);
  const names = others.length > 0 ? others.map(pageName) : ['ivshmem-server'];
  return names.map((name) => `${bold(name)}(1)`).join(',\n');
}
