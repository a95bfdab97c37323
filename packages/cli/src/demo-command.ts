import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { missingNetworkPrivilege, namespaceLimits } from '@ivshmem/linux/network';
import { openOutput } from '@ivshmem/linux/process';
import type { Command } from 'commander';
import { type DemoResult, gbits, runDemo } from './demo/demo.ts';
import { createScreen, noScreen, type Screen } from './demo/screen.ts';
import { abortOnEof, abortOnSignals, EXIT_FAILURE, EXIT_OK } from './exit.ts';
import { jsonLine } from './printer.ts';

const EXAMPLES = `
Examples:
  ivshmem demo
  ivshmem demo --json | tail -1
`;

interface Options {
  json: boolean;
  offload: boolean;
}

/** Set for the demo that was started inside a user namespace: it does not try that again. */
const INSIDE = 'IVSHMEM_DEMO_USER_NAMESPACE';

export function addDemoCommand(program: Command, finish: (code: number) => void): void {
  program
    .command('demo')
    .description(
      'Starts a host server, links two fresh network namespaces by two processes, and shows handshake, ping, TCP throughput and recovery from a crash. Takes about half a minute and leaves nothing behind. Needs root, or user namespaces.',
    )
    .option('--json', 'print one JSON object with the results and nothing else', false)
    .option('--no-offload', 'measure without checksum and segmentation offload')
    .option('--verbose', 'print stack traces of errors', false)
    .addHelpText('after', EXAMPLES)
    .action(async (options: Options) => finish(await demo(options)));
}

async function demo({ json, offload }: Options): Promise<number> {
  using signals = abortOnSignals();
  const inside = process.env[INSIDE] !== undefined;
  using eof = inside ? abortOnEof() : null;
  const signal = eof === null ? signals.signal : AbortSignal.any([signals.signal, eof.signal]);
  const missing = missingNetworkPrivilege();
  if (missing !== null) {
    if (process.getuid?.() !== 0 && !inside) return await insideUserNamespace(missing, signal);
    throw new Error(`The demo can't run here. ${missing}`);
  }
  // A terminal that was stopped, or a pipe that nothing reads, does not keep it from ending.
  await using output = openOutput(1);
  const { isTTY } = process.stdout;
  const terminal = {
    isTTY,
    get columns() {
      return process.stdout.columns;
    },
    write: output.write,
  };
  const screen = json ? noScreen : createScreen(terminal);
  try {
    const result = await runDemo(screen, offload, signal);
    if (json) output.write(jsonLine(result));
    else summarise(screen, result);
    return EXIT_OK;
  } catch (error) {
    if (!signal.aborted) throw error;
    screen.heading('Stopped. Nothing is left behind.');
    return EXIT_FAILURE;
  }
}

function summarise(screen: Screen, { linkUpMs, ping, tcp, crash }: DemoResult): void {
  screen.heading('Summary');
  screen.table([
    ['link up after', `${linkUpMs} ms`],
    ['ping', `${ping.sent} sent, ${ping.lost} lost`],
    ['round trip', `${ping.p50.toFixed(0)} µs (p50), ${ping.p99.toFixed(0)} µs (p99)`],
    ...tcp.map(({ mtu, aToB, bToA }): [string, string] => [
      `TCP at MTU ${mtu}`,
      `${gbits(aToB * 1e9)} A to B, ${gbits(bToA * 1e9)} B to A`,
    ]),
    ['after a SIGKILL', `noticed in ${crash.noticedMs} ms, link up again after ${crash.downMs} ms`],
  ]);
}

/**
 * Runs the demo as root of a user namespace, which has all privileges over network namespaces of its own.
 * unshare(1) belongs to util-linux, which every Debian has; a process with several threads can't do it itself.
 */
async function insideUserNamespace(missing: string, signal: AbortSignal): Promise<number> {
  const refused = whyNoNamespaces();
  if (refused !== null) throw new Error(`The demo can't run here. ${missing} ${refused}`);
  const command = [...NAMESPACES, process.execPath, ...process.argv.slice(1)];
  // In a process group of its own: signals reach this process alone. The other one ends with its input, which comes to
  // its end whatever happens to this one.
  const child = spawn('unshare', command, {
    stdio: ['pipe', 'inherit', 'inherit'],
    detached: true,
    env: { ...process.env, [INSIDE]: '1' },
  });
  const stop = () => child.stdin.end();
  child.stdin.on('error', () => {});
  signal.addEventListener('abort', stop);
  if (signal.aborted) stop();
  const [code] = await once(child, 'exit');
  return code ?? EXIT_FAILURE;
}

/** Arguments of unshare(1). */
const NAMESPACES = ['--user', '--map-root-user', '--net', '--mount', '--'];

/** Why unshare(1) is refused the namespaces, in a sentence with the remedy; null if it is not. */
function whyNoNamespaces(): string | null {
  const env = { ...process.env, LC_ALL: 'C' };
  const { error, status, stderr } = spawnSync('unshare', [...NAMESPACES, 'true'], { encoding: 'utf8', env });
  if (status === 0) return null;
  if (error !== undefined) return `Without privileges it needs unshare(1), of util-linux (${error.message}).`;
  const [text] = stderr.trim().split('\n');
  const remedy = text?.includes('No space left on device')
    ? namespaceLimits('user', 'net', 'mnt')
    : 'allow them with sysctl kernel.unprivileged_userns_clone=1 (Debian) or kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), in a container with a seccomp profile that does';
  return `User namespaces can't be made either (${text}): ${remedy}.`;
}
