import { execFile } from 'node:child_process';
import { accessSync, constants, existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type Check, ok, warning } from './check.ts';
import { isOlder } from './machine.ts';

const call = promisify(execFile);
/** The first version with vfio-user-pci. */
const OLDEST_QEMU = [10, 1] as const;
/** Time limit for a program to answer, in ms. */
const TIMEOUT = 20_000;
const ARCHITECTURES: Partial<Record<NodeJS.Architecture, string>> = { x64: 'x86_64', arm64: 'aarch64' };
const NEWER = 'install QEMU 10.1 or later: docs/qemu.md says where from';

/** What virtual machines need. Links without virtual machines work without all of it. */
export async function checkVirtualMachines(path = process.env.PATH ?? ''): Promise<Check[]> {
  const folders = path.split(':').filter((folder) => folder !== '');
  const qemu = findQemu(folders);
  if (qemu === null) {
    return [
      warning('QEMU', 'no qemu-system-… in PATH: only virtual machines need it', NEWER),
      ...checkLibvirt(),
    ];
  }
  return [await checkQemu(qemu), checkKvm(), ...checkLibvirt()];
}

/** The program for this machine's architecture, else any. */
function findQemu(folders: readonly string[]): string | null {
  const own = `qemu-system-${ARCHITECTURES[process.arch] ?? process.arch}`;
  const all = [...folders, '/usr/libexec'].flatMap((folder) =>
    programsIn(folder)
      .filter((name) => /^qemu-(system-\w+|kvm)$/.test(name))
      .map((name) => join(folder, name)),
  );
  return all.find((file) => file.endsWith(`/${own}`)) ?? all[0] ?? null;
}

function programsIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

async function checkQemu(file: string): Promise<Check> {
  let version: string;
  let devices: string;
  try {
    const run = async (...argv: string[]) => (await call(file, argv, { timeout: TIMEOUT })).stdout;
    version = /version (\d+\.\d+\S*)/.exec(await run('--version'))?.[1] ?? 'of an unknown version';
    devices = await run('-device', 'help');
  } catch (error) {
    const [line = ''] = (error as Error).message.split('\n');
    return warning('QEMU', `${file} does not run: ${line}`, 'install it again, or correct PATH');
  }
  const text = `${file} ${version}`;
  if (devices.includes('"vfio-user-pci"')) return ok('QEMU', `${text} has vfio-user-pci`);
  const remedy = isOlder(version, OLDEST_QEMU) ? NEWER : 'install a QEMU that was built with vfio-user';
  return warning('QEMU', `${text} has no vfio-user-pci`, remedy);
}

function checkKvm(): Check {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
    return ok('KVM', '/dev/kvm can be opened');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const remedy =
      code === 'EACCES'
        ? 'add the user that runs QEMU to the group kvm'
        : 'enable virtualisation in the firmware or in the host of this machine, and load the module kvm';
    return warning('KVM', `/dev/kvm can't be opened (${code}): guests are emulated, and slow`, remedy);
  }
}

/** The rules that keep a QEMU started by libvirt from a socket. `root`: where the file system begins. */
export function checkLibvirt(root = '/'): Check[] {
  const read = (file: string) => {
    try {
      return readFileSync(join(root, file), 'latin1');
    } catch {
      return '';
    }
  };
  if (!existsSync(join(root, 'etc/libvirt'))) return [];
  const checks: Check[] = [];
  const rules = 'etc/apparmor.d/local/abstractions/libvirt-qemu';
  if (read('sys/module/apparmor/parameters/enabled').startsWith('Y')) {
    const line = '/run/ivshmem/*.sock rw,';
    checks.push(
      /^[^#\n]*ivshmem/m.test(read(rules))
        ? ok('AppArmor', `/${rules} has a rule for ivshmem`)
        : warning(
            'AppArmor',
            'its profile for libvirt has no rule for the sockets',
            `add the line "${line}" to /${rules}`,
          ),
    );
  }
  if (read('sys/fs/selinux/enforce').startsWith('1')) {
    const remedy =
      'if a VM cannot connect, "ausearch -m AVC -c qemu-kvm" shows what to allow, and audit2allow makes a rule of it';
    checks.push(warning('SELinux', 'enforces its policy, which may keep QEMU from the sockets', remedy));
  }
  return checks.length > 0 ? checks : [ok('libvirt', 'neither AppArmor nor SELinux confines its QEMU')];
}
