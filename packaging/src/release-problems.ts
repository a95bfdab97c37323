import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** What keeps a version from being released, a line each: versions that differ, a changelog that does not name it. */
export function releaseProblems(workspace: string): readonly string[] {
  const json = (path: string) => JSON.parse(readFileSync(join(workspace, path), 'utf8'));
  const { workspaces, version } = json('package.json');
  const folders: string[] = workspaces.flatMap((path: string) =>
    path.endsWith('/*')
      ? readdirSync(join(workspace, path.slice(0, -2))).map((name) => join(path.slice(0, -2), name))
      : [path],
  );
  const lock = json('package-lock.json');
  const problems: string[] = [];
  for (const folder of folders) {
    const manifest = json(`${folder}/package.json`);
    const expectVersion = (what: string, found: string | undefined) => {
      if (found !== version)
        problems.push(`${folder}/package.json: ${what} is ${found}, that of package.json ${version}`);
    };
    expectVersion('version', manifest.version);
    for (const [name, range] of Object.entries<string>({
      ...manifest.dependencies,
      ...manifest.devDependencies,
    })) {
      if (name.startsWith('@ivshmem/')) expectVersion(`dependency on ${name}`, range);
    }
    if (lock.packages[folder]?.version !== manifest.version) {
      problems.push(`package-lock.json: has another version of ${folder}: run "npm install"`);
    }
  }
  const changelog = readFileSync(join(workspace, 'CHANGELOG.md'), 'utf8');
  const title = /^## (.*)$/m.exec(changelog)?.[1] ?? '';
  if (!new RegExp(`^${version.replaceAll('.', '\\.')} - \\d{4}-\\d\\d-\\d\\d$`).test(title)) {
    problems.push(`CHANGELOG.md: its first section is "${title}": it must be "${version} - YYYY-MM-DD"`);
  }
  return problems;
}
