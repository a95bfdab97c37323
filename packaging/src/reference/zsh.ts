import type { CommandReference, OptionReference, ProgramReference } from '@ivshmem/cli/reference';
import {
  functionName,
  optionsOf,
  quoted,
  shortName,
  shortText,
  type ValueKind,
  valueKind,
} from './completion.ts';

/** Completion for zsh, to be found as `_NAME` in a folder of its fpath. */
export function zshCompletion(program: ProgramReference): string {
  const { name, commands } = program;
  const head = `#compdef ${name}\n# zsh completion of ${name}, generated from its commands\n`;
  if (commands.length === 0) return `${head}\n_arguments${argumentsOf(program)}\n`;
  const rows = [...commands, { name: 'help', summary: 'show the help of a command' }];
  return `${head}
${functionName(program)}() {
  local context state state_descr line
  local -a commands
  typeset -A opt_args
  _arguments -C${argumentsOf(program)} \\
    '1: :->command' \\
    '*:: :->rest'
  case $state in
    command)
      commands=(
${rows.map((row) => `        ${quoted(`${shortName(row as CommandReference)}:${row.summary}`)}\n`).join('')}      )
      _describe command commands
      ;;
    rest)
      case $words[1] in
${commands.map((command) => `        ${shortName(command)}) _arguments${argumentsOf(command)} ;;\n`).join('')}        help) _values command ${commands.map(shortName).join(' ')} ;;
      esac
      ;;
  esac
}

${functionName(program)} "$@"
`;
}

function argumentsOf(command: CommandReference): string {
  const operands = command.operands.map((operand) => {
    const position = operand.isVariadic ? '*' : '';
    return quoted(`${position}:${escaped(operand.value)}:${action(valueKind(operand)!)}`);
  });
  return [...optionsOf(command).map(specification), ...operands].map((each) => ` \\\n    ${each}`).join('');
}

function specification(option: OptionReference): string {
  const { names, isRepeatable, isValueOptional, value } = option;
  const kind = valueKind(option);
  const end = kind === null ? '' : `${isValueOptional ? '::' : ':'}${escaped(value!)}:${action(kind)}`;
  const text = `[${escaped(shortText(option))}]${end}`;
  const form = (name: string) => {
    if (kind === null) return name;
    if (isValueOptional) return `${name}=-`;
    return name.startsWith('--') ? `${name}=` : `${name}+`;
  };
  if (isRepeatable) return names.map((name) => quoted(`*${form(name)}${text}`)).join(' ');
  if (names.length === 1) return quoted(`${form(names[0]!)}${text}`);
  return `${quoted(`(${names.join(' ')})`)}{${names.map(form).join(',')}}${quoted(text)}`;
}

/** Brackets and colons end parts of a specification. */
const escaped = (text: string) => text.replace(/[[\]:\\]/g, '\\$&');

function action(kind: ValueKind): string {
  switch (kind) {
    case 'none':
      return ' ';
    case 'file':
      return '_files';
    case 'directory':
      return '_files -/';
    case 'user':
      return '_users';
    case 'group':
      return '_groups';
    case 'interface':
      return '_net_interfaces';
    case 'bridge':
      return '{compadd -- /sys/class/net/*/bridge(N:h:t)}';
    case 'netns':
      return '{compadd -- /run/netns/*(N:t); _files}';
    default:
      return `(${kind.join(' ')})`;
  }
}
