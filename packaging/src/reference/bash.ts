import type { CommandReference, ProgramReference } from '@ivshmem/cli/reference';
import { functionName, optionsOf, quoted, shortName, type ValueKind, valueKind } from './completion.ts';

/** Completion for bash: needs nothing but its builtins. */
export function bashCompletion(program: ProgramReference): string {
  const { name, commands } = program;
  const names = commands.length > 0 ? [...commands.map(shortName), 'help'] : [];
  const help = names.length > 0 ? `    help) ${words(commands.map(shortName))} ;;\n` : '';
  return `# bash completion of ${name}, generated from its commands

${functionName(program)}() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD - 1]} command= word
  COMPREPLY=()
  # "--option=value" is three words.
  if [[ $current == = ]]; then
    current=
  elif [[ $previous == = ]] && ((COMP_CWORD > 2)); then
    previous=\${COMP_WORDS[COMP_CWORD - 2]}
  fi
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case $word in
      ${names.length > 0 ? `${names.join(' | ')}) command=$word; break ;;` : '*) break ;;'}
    esac
  done
  case $command:$previous in
${valueCases(program)}  esac
  case $command in
${caseOf(program, "''", names.length > 0 ? words(names) : ':')}${commands.map((command) => caseOf(command, shortName(command), operandsOf(command))).join('')}${help}  esac
  # A value follows "=".
  if [[ \${COMPREPLY-} == *= ]]; then compopt -o nospace 2> /dev/null; fi
}

complete -F ${functionName(program)} ${name}
`;
}

const words = (list: readonly string[]) =>
  `COMPREPLY=($(compgen -W ${quoted(list.join(' '))} -- "$current"))`;

/** What follows options that take a value: a case for all that take the same. */
function valueCases(program: ProgramReference): string {
  const patterns = new Map<string, string[]>();
  for (const command of [program, ...program.commands]) {
    const prefix = command === program ? '' : shortName(command);
    for (const option of optionsOf(command)) {
      const kind = valueKind(option);
      if (kind === null || option.isValueOptional) continue;
      const statement = offer(kind);
      const known = patterns.get(statement) ?? [];
      patterns.set(statement, [...known, ...option.names.map((name) => `${prefix}:${name}`)]);
    }
  }
  return [...patterns]
    .map(([statement, names]) => `    ${names.join(' | ')})\n      ${statement}\n      return\n      ;;\n`)
    .join('');
}

/** Options, or else operands. */
function caseOf(command: CommandReference, pattern: string, otherwise: string): string {
  const options = optionsOf(command).flatMap(({ names, isValueOptional }) =>
    names.map((name) => (isValueOptional ? `${name}=` : name)),
  );
  return `    ${pattern})
      case $current in
        -*) ${words(options)} ;;
        *) ${otherwise} ;;
      esac
      ;;
`;
}

function operandsOf({ operands }: CommandReference): string {
  const [operand] = operands;
  return operand === undefined ? ':' : offer(valueKind(operand)!);
}

function offer(kind: ValueKind): string {
  const generated = (command: string) => `COMPREPLY=($(${command}))`;
  const files = (command: string) =>
    `compopt -o filenames 2> /dev/null; mapfile -t COMPREPLY < <(${command})`;
  switch (kind) {
    case 'none':
      return ':';
    case 'file':
      return files('compgen -f -- "$current"');
    case 'directory':
      return files('compgen -d -- "$current"');
    case 'user':
      return generated('compgen -u -- "$current"');
    case 'group':
      return generated('compgen -g -- "$current"');
    case 'interface':
      return generated('compgen -W "$(command ls /sys/class/net)" -- "$current"');
    case 'bridge':
      return generated(
        'cd /sys/class/net && for word in */bridge; do compgen -W "$(dirname "$word")" -- "$current"; done',
      );
    case 'netns':
      return files(
        'compgen -W "$(command ls /run/netns 2> /dev/null)" -- "$current"; compgen -f -- "$current"',
      );
    default:
      return words(kind);
  }
}
