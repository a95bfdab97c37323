import { accessSync, constants, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { DebianTree } from './debian-tree.ts';

/** The default one, with a source of random numbers: without any, Node waits for the kernel to gather some. */
const EMULATED_CPU = 'qemu64,+rdrand';

/** How guest code is run. */
export type Accelerator = 'kvm' | 'tcg';

export interface QemuOptions {
  readonly accelerator: Accelerator;
  /** Memory of the guest, in MiB. */
  readonly memory: number;
  readonly image: string;
  /** An IOMMU, without which vfio-pci takes no device. */
  readonly iommu: boolean;
  /** Unix socket that the port for commands connects to. */
  readonly jobs: string;
  /** Further arguments: devices. */
  readonly devices: readonly string[];
}

/**
 * KVM where the processor itself runs guests and the device is accessible, else TCG. (There are hosts that offer
 * /dev/kvm and emulate instructions; a Linux guest does not start there.) `IVSHMEM_VM_ACCEL` overrides the choice.
 */
export function accelerator(): Accelerator {
  const wanted = process.env.IVSHMEM_VM_ACCEL;
  if (wanted === 'kvm' || wanted === 'tcg') return wanted;
  if (wanted !== undefined) throw new Error(`IVSHMEM_VM_ACCEL=${wanted}: must be kvm or tcg`);
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
  } catch {
    return 'tcg';
  }
  return /^flags\s*:.*\b(vmx|svm)\b/m.test(readFileSync('/proc/cpuinfo', 'utf8')) ? 'kvm' : 'tcg';
}

/** The command that runs the tree's QEMU on this host: through its own loader, with its own libraries. */
export function qemuProgram(tree: DebianTree): string[] {
  const at = (path: string) => join(tree.root, path);
  return [
    at('usr/lib64/ld-linux-x86-64.so.2'),
    ...['--library-path', at('usr/lib/x86_64-linux-gnu')],
    at('usr/bin/qemu-system-x86_64'),
    ...['-L', at('usr/share/qemu'), '-L', at('usr/share/seabios')],
  ];
}

/** A headless guest: command line, and environment variables to add. */
export function qemuCommand(
  tree: DebianTree,
  options: QemuOptions,
): { argv: string[]; env: NodeJS.ProcessEnv } {
  const { accelerator, memory, image, iommu, jobs, devices } = options;
  const kvm = accelerator === 'kvm';
  const machine = kvm && iommu ? 'q35,kernel-irqchip=split' : 'q35';
  const argv = [
    ...qemuProgram(tree),
    ...['-nodefaults', '-no-user-config', '-display', 'none'],
    ...['-machine', machine, '-accel', accelerator, '-cpu', kvm ? 'host' : EMULATED_CPU],
    ...['-m', `${memory}M`, '-smp', '1'],
    ...['-kernel', tree.kernel, '-initrd', image],
    // The kernel gives up where the first ticks come late, as they do when the host is busy.
    ...['-append', 'console=ttyS0 quiet panic=-1 no_timer_check'],
    ...['-serial', 'stdio', '-chardev', `socket,id=jobs,path=${jobs}`],
    // Before the devices that it is to translate for. Without the caching mode QEMU ends when vfio-user maps memory.
    ...(iommu ? ['-device', 'intel-iommu,caching-mode=on,aw-bits=48'] : []),
    ...['-device', 'virtio-serial-pci', '-device', 'virtserialport,chardev=jobs,name=jobs'],
    ...devices,
  ];
  return { argv, env: { QEMU_MODULE_DIR: join(tree.root, 'usr/lib/x86_64-linux-gnu/qemu') } };
}

/** An ivshmem v2 device that a server offers on a Unix socket. */
export function ivshmemDevice(socket: string): string[] {
  return ['-device', JSON.stringify({ driver: 'vfio-user-pci', socket: { type: 'unix', path: socket } })];
}

/** A network card at one end of a cable, a Unix socket: the end that listens must be started first. */
export function networkCard(socket: string, end: 'listens' | 'connects', mac: string): string[] {
  const server = end === 'listens' ? 'on' : 'off';
  return [
    ...['-netdev', `stream,id=net0,server=${server},addr.type=unix,addr.path=${socket}`],
    ...['-device', `virtio-net-pci,netdev=net0,mac=${mac},romfile=`],
  ];
}

/** A disk that cannot be written: a file, as it is, with zeros up to a whole sector. */
export function disk(file: string): string[] {
  return ['-drive', `file=${file},format=raw,if=virtio,readonly=on`];
}
