import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { stripVTControlCharacters } from 'node:util';

/** Where completion is installed, and how a program is started there. */
export interface ShellPlace {
  /** Such as /usr/share. */
  readonly share: string;
  /** What precedes a command line, such as that of nsenter. */
  readonly prefix: readonly string[];
}

const START = {
  bash: {
    command: 'bash --norc --noprofile -i',
    setup: (share: string) => `. ${share}/bash-completion/completions/ivshmem`,
  },
  zsh: {
    command: 'zsh -f -i',
    setup: (share: string) =>
      `fpath=(${share}/zsh/vendor-completions $fpath); autoload -Uz compinit; compinit -u -D`,
  },
};
/** How long a shell may take, in ms. */
const PATIENCE = 60_000;

/**
 * Types text and a tabulator in an interactive shell with a terminal of its own; resolves when the line has become
 * `expected`. Rejects with what the shell has printed instead.
 */
export async function typeTab(
  shell: keyof typeof START,
  { share, prefix }: ShellPlace,
  text: string,
  expected: string,
): Promise<void> {
  const { command, setup } = START[shell];
  const [program, ...argv] = [...prefix, 'script', '-qec', command, '/dev/null'];
  const child = spawn(program!, argv, {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { PATH: '/usr/local/bin:/usr/bin:/bin', TERM: 'dumb' },
  });
  let printed = '';
  let look = () => {};
  child.stdout.setEncoding('utf8').on('data', (part) => {
    printed += part;
    look();
  });
  const prints = (what: RegExp) =>
    new Promise<void>((resolve, reject) => {
      const fail = () => reject(new Error(`${shell}: "${text}" became ${JSON.stringify(printed)}`));
      const timer = setTimeout(fail, PATIENCE);
      child.once('close', fail);
      look = () => {
        if (!what.test(stripVTControlCharacters(printed))) return;
        clearTimeout(timer);
        resolve();
      };
      look();
    });
  try {
    // Other text than what is typed, which the terminal shows, too.
    child.stdin.write(`${setup(share)}; echo rea''dy\n`);
    await prints(/ready\r?\n/);
    printed = '';
    child.stdin.write(`${text}\t`);
    await prints(new RegExp(expected.replace(/[.*+?^$()[\]{}|\\]/g, '\\$&')));
  } finally {
    child.kill('SIGKILL');
    await once(child, 'close');
  }
}

/** What the generated function of bash offers for the last of some words. */
export function bashOffers({ share, prefix }: ShellPlace, ...words: string[]): string[] {
  const script = `. ${share}/bash-completion/completions/${words[0]}
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _${words[0]!.replace(/\W/g, '_')}; printf '%s\\n' "\${COMPREPLY[@]}"`;
  return linesOf([...prefix, 'bash', '-c', script, 'bash', ...words]);
}

/** What fish offers for the end of a command line; without descriptions. */
export function fishOffers({ share, prefix }: ShellPlace, line: string): string[] {
  const file = `${share}/fish/vendor_completions.d/${line.split(' ')[0]}.fish`;
  const script = `source ${file}; complete -C '${line}'`;
  return linesOf([...prefix, 'fish', '--no-config', '-c', script]).map((each) => each.split('\t')[0]!);
}

function linesOf([program, ...argv]: readonly string[]): string[] {
  const { status, stdout, stderr } = spawnSync(program!, argv, { encoding: 'utf8' });
  if (status !== 0 || stderr !== '') throw new Error(`${program}: exit status ${status}: ${stderr}`);
  return stdout.split('\n').filter((line) => line !== '');
}

/** Whether this machine has a program. */
export const hasProgram = (name: string): boolean =>
  spawnSync('sh', ['-c', `command -v ${name}`]).status === 0;
