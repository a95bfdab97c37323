import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** The terms of a package that is part of the bundle. */
export interface Licence {
  readonly name: string;
  readonly version: string;
  /** Its SPDX identifier. */
  readonly licence: string;
  /** Lines that begin with "Copyright". */
  readonly holders: readonly string[];
  readonly text: string;
}

/** The terms of packages, whose folders are in `workspace`. Throws an Error for one without a licence. */
export function licences(workspace: string, folders: readonly string[]): readonly Licence[] {
  return folders.map((folder) => {
    const path = join(workspace, folder);
    const { name, version, license, author } = JSON.parse(readFileSync(join(path, 'package.json'), 'utf8'));
    const file = readdirSync(path).find((entry) => /^licen[cs]e(\.|$)/i.test(entry));
    const text = file === undefined ? '' : readFileSync(join(path, file), 'utf8').trim();
    if (typeof license !== 'string') throw new Error(`${folder}: names no licence`);
    const lines = text.split('\n').map((line) => line.trim());
    const found = lines.filter((line) => /^copyright\b.*\d{4}/i.test(line));
    const writer = typeof author === 'string' ? author : author?.name;
    return {
      name,
      version,
      licence: license,
      holders: found.length > 0 ? found : [`Copyright ${writer ?? `the authors of ${name}`}`],
      text,
    };
  });
}

/** A file with all of them. */
export function licenceFile(list: readonly Licence[]): string {
  const parts = list.map(({ name, version, licence, holders, text }) =>
    [`${name} ${version}`, `Licence: ${licence}`, '', text === '' ? holders.join('\n') : text].join('\n'),
  );
  return `The files in lib contain code of these packages.\n\n${parts.join(`\n\n${'-'.repeat(72)}\n\n`)}\n`;
}
