import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';

/** Which of these programs are not in PATH, and what to install; null if all are. */
export function missingPrograms(names: readonly string[], debianPackage: string): string | null {
  const directories = (process.env.PATH ?? '').split(':');
  const isThere = (name: string) =>
    directories.some((directory) => {
      try {
        accessSync(join(directory, name), constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
  const missing = names.filter((name) => !isThere(name));
  return missing.length === 0
    ? null
    : `${missing.join(', ')} not found; install with "apt-get install --no-install-recommends ${debianPackage}"`;
}
