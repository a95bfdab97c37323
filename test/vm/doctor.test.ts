import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { COMMAND } from '../support/program.ts';
import { describeVm } from './requirements.ts';
import { debianTree } from './src/debian-tree.ts';
import { qemuProgram } from './src/qemu.ts';

describeVm('ivshmem doctor', () => {
  it('finds a real QEMU with vfio-user-pci', () => {
    const directory = mkdtempSync(join(tmpdir(), 'ivshmem-doctor-vm-'));
    const script = join(directory, 'qemu-system-x86_64');
    writeFileSync(script, `#!/bin/sh\nexec ${qemuProgram(debianTree(() => {})).join(' ')} "$@"\n`);
    chmodSync(script, 0o755);
    const env = { ...process.env, PATH: `${directory}:${process.env.PATH}` };
    const { stdout } = spawnSync(process.execPath, [COMMAND, 'doctor', '--json'], { encoding: 'utf8', env });
    rmSync(directory, { recursive: true });
    const { checks } = JSON.parse(stdout);
    expect(checks.find(({ name }: { name: string }) => name === 'QEMU')).toMatchObject({
      status: 'ok',
      text: expect.stringMatching(/qemu-system-x86_64 \d+\.\d+\S* has vfio-user-pci$/),
    });
  });
});
