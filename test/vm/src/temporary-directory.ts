import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const existing = new Set<string>();
process.on('exit', () => {
  for (const directory of existing) removeDirectory(directory);
});

/** Makes a folder for sockets that does not outlive this process, unless that is killed by SIGKILL. */
export function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'ivshmem-vm-'));
  existing.add(directory);
  return directory;
}

/** Removes such a folder with all that is in it. */
export function removeDirectory(directory: string): void {
  existing.delete(directory);
  rmSync(directory, { recursive: true, force: true });
}
