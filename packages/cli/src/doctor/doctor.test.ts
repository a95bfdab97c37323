import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { checkLockedMemory, checkOpenFiles } from './limits.ts';
import { checkKernel, checkPages, isOlder } from './machine.ts';
import { checkLibvirt, checkVirtualMachines } from './qemu.ts';

describe('the kernel', () => {
  it.each([
    ['5.10.0-30-amd64', 'x64', 'ok'],
    ['6.1.0', 'arm64', 'ok'],
    ['5.9.16', 'x64', 'failure'],
    ['4.19.0', 'x64', 'failure'],
    ['6.1.0', 'riscv64', 'warning'],
    ['unknown', 'x64', 'ok'],
  ])('%s on %s: %s', (version, architecture, status) => {
    expect(checkKernel(version, architecture)).toMatchObject({ status });
  });

  it('may have pages that limit the sizes of sections', () => {
    expect(checkPages(65_536).text).toBe('pages of 65536 bytes: sizes of sections must be multiples of that');
    expect(checkPages(4096).text).toBe('pages of 4096 bytes');
  });

  it('compares versions by number', () => {
    expect(isOlder('10.0.2 (Debian 1:10.0.2)', [10, 1])).toBe(true);
    expect(isOlder('9.2', [10, 1])).toBe(true);
    expect(isOlder('10.10', [10, 2])).toBe(false);
  });
});

describe('limits', () => {
  const limits = (files: string) =>
    `Limit                     Soft Limit           Hard Limit           Units\nMax open files            256                  ${files}                 files\nMax locked memory         unlimited            unlimited            bytes\n`;

  it('of open files are a warning if they are low', () => {
    expect(checkOpenFiles(limits('512'))).toMatchObject({
      status: 'warning',
      text: 'RLIMIT_NOFILE is 256, at most 512',
    });
    expect(checkOpenFiles(limits('1024')).status).toBe('ok');
    expect(checkOpenFiles(limits('unlimited')).status).toBe('ok');
    expect(checkLockedMemory(limits('512')).text).toContain('RLIMIT_MEMLOCK is unlimited;');
  });
});

describe('what virtual machines need', () => {
  let directory: string;
  const put = (path: string, text: string) => {
    const file = join(directory, path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
    chmodSync(file, 0o755);
  };

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'ivshmem-doctor-test-'));
  });

  afterEach(() => rmSync(directory, { recursive: true }));

  const qemu = (version: string, device: string) =>
    `#!/bin/sh\ncase "$1" in --version) echo "QEMU emulator version ${version} (Debian)";; -device) echo 'name "${device}", bus PCI';; esac\n`;

  it.each([
    ['11.1.3', 'vfio-user-pci', 'ok', undefined],
    ['10.0.2', 'vfio-pci', 'warning', /10\.1 or later/],
    ['11.1.3', 'vfio-pci', 'warning', /built with vfio-user/],
  ])('is asked of QEMU: %s with %s', async (version, device, status, remedy) => {
    put('qemu-system-test', qemu(version, device));
    const [check] = await checkVirtualMachines(directory);
    expect(check).toMatchObject({ name: 'QEMU', status });
    expect(check!.text).toContain(`qemu-system-test ${version}`);
    if (remedy !== undefined) expect(check!.remedy).toMatch(remedy);
  });

  it('is a warning without QEMU, or with one that does not run', async () => {
    const [none] = await checkVirtualMachines(`${directory}:/nonexistent:`);
    expect(none).toMatchObject({ name: 'QEMU', status: 'warning', text: expect.stringContaining('in PATH') });
    put('qemu-system-test', '#!/bin/sh\necho broken >&2\nexit 1\n');
    const [broken] = await checkVirtualMachines(directory);
    expect(broken).toMatchObject({ status: 'warning', text: expect.stringContaining('does not run') });
  });

  it('are rules for the sockets, if libvirt is confined', () => {
    expect(checkLibvirt(directory)).toEqual([]);
    mkdirSync(join(directory, 'etc/libvirt'), { recursive: true });
    expect(checkLibvirt(directory)).toMatchObject([{ name: 'libvirt', status: 'ok' }]);
    put('sys/module/apparmor/parameters/enabled', 'Y\n');
    put('sys/fs/selinux/enforce', '1');
    expect(checkLibvirt(directory)).toMatchObject([
      { name: 'AppArmor', status: 'warning', remedy: expect.stringContaining('/run/ivshmem/*.sock rw,') },
      { name: 'SELinux', status: 'warning' },
    ]);
    const rules = 'etc/apparmor.d/local/abstractions/libvirt-qemu';
    put(rules, '# /run/ivshmem/*.sock rw,\n');
    expect(checkLibvirt(directory)[0]!.status).toBe('warning');
    put(rules, '  /run/ivshmem/*.sock rw,\n');
    put('sys/fs/selinux/enforce', '0');
    expect(checkLibvirt(directory)).toMatchObject([{ name: 'AppArmor', status: 'ok' }]);
  });
});
