import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const checkout = fileURLToPath(new URL('../..', import.meta.url));
const launcher = fileURLToPath(new URL('machine.sh', import.meta.url));
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin';
/** How long a script may take, in s: far more than any does. */
const PATIENCE = 90;

/** systemd as PID 1 of its own namespaces, see machine.sh. It ends with {@link stop}, and with this process. */
export class Machine {
  readonly #launcher: ChildProcess;
  /** Its process ID on the host. */
  readonly pid: number;

  private constructor(launcher: ChildProcess, pid: number) {
    this.#launcher = launcher;
    this.pid = pid;
  }

  /** Boots it from the packages in `tree`, with this process's own Node.js; resolves when all its services are up. */
  static boot(tree: string): Promise<Machine> {
    return Machine.#boot(tree, process.execPath, checkout);
  }

  /** Boots an installed system with a Node.js of its own, and `folder` as /opt/ivshmem. */
  static bootInstalled(root: string, folder: string): Promise<Machine> {
    return Machine.#boot(root, 'installed', folder);
  }

  static async #boot(...argv: readonly string[]): Promise<Machine> {
    const child = spawn('sh', [launcher, ...argv], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { PATH },
    });
    const failed = once(child, 'exit').then(([code]) => {
      throw new Error(`${launcher}: systemd was not started, exit status ${code}`);
    });
    const [line] = await Promise.race([once(createInterface(child.stdout!), 'line'), failed]);
    failed.catch(() => {});
    const machine = new Machine(child, Number(String(line).replace('pid ', '')));
    await machine.until('[ -S /run/systemd/private ]');
    await machine.sh('systemctl is-system-running --wait || systemctl --failed');
    return machine;
  }

  /** Runs a script as root; resolves with what it printed, rejects with that if it fails. */
  async sh(script: string): Promise<string> {
    const argv = ['--target', String(this.pid), '--all', '--root', '--wd', '--'];
    const child = spawn('nsenter', [...argv, 'timeout', String(PATIENCE), 'sh', '-eu'], { env: { PATH } });
    let printed = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => {
        printed += text;
      });
    }
    child.stdin.on('error', () => {});
    child.stdin.end(script);
    const [code] = await once(child, 'close');
    if (code !== 0) throw new Error(`exit status ${code}: ${script}\n${printed}`);
    return printed.trim();
  }

  /** Looks, ten times a second, until a command succeeds; rejects with what `explain` prints if it never does. */
  async until(condition: string, explain = ':'): Promise<void> {
    const seconds = PATIENCE - 10;
    await this.sh(
      `timeout ${seconds} sh -c 'until "$@"; do sleep 0.1; done' sh sh -c '${condition}' || { ${explain}; exit 1; }`,
    );
  }

  /** Kills all of it. */
  async stop(): Promise<void> {
    const exited = once(this.#launcher, 'exit');
    this.#launcher.stdin!.end();
    await exited;
  }
}
