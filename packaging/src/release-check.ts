import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { releaseProblems } from './release-problems.ts';
import { sourceDate } from './tree.ts';

// Builds a release from the commit that is checked out, in a folder of its own, into the folder that is given (default:
// release), and says what keeps it from being published. Exit code 1 if anything does.

const workspace = fileURLToPath(new URL('../..', import.meta.url));
const output = resolve(process.argv[2] ?? join(workspace, 'release'));
const date = sourceDate(workspace);
// npm packs files with the permissions that they have.
process.umask(0o022);
const run = (command: string, argv: string[], cwd: string, input?: Buffer) =>
  execFileSync(command, argv, {
    cwd,
    ...(input && { input }),
    maxBuffer: 2 ** 28,
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, SOURCE_DATE_EPOCH: String(date.getTime() / 1000) },
  });

/** The files of the commit, with the packages of npm that are installed here. */
function checkout(folder: string): void {
  const archive = run('git', ['archive', 'HEAD'], workspace);
  run('tar', ['-x'], folder, archive);
  const modules = join(folder, 'node_modules');
  mkdirSync(join(modules, '@ivshmem'), { recursive: true });
  for (const name of readdirSync(join(workspace, 'node_modules'))) {
    if (name !== '@ivshmem') symlinkSync(join(workspace, 'node_modules', name), join(modules, name));
  }
  for (const name of readdirSync(join(workspace, 'node_modules/@ivshmem'))) {
    const path = ['packages', 'test', 'docs', '.']
      .map((parent) => join(folder, parent, name))
      .find(existsSync);
    // A package that the commit does not have is not needed.
    if (path !== undefined) symlinkSync(path, join(modules, '@ivshmem', name));
  }
}

const folder = mkdtempSync(join(tmpdir(), 'ivshmem-release-'));
let problems: readonly string[];
try {
  checkout(folder);
  run(
    'node',
    [join(workspace, 'node_modules/typescript/bin/tsc'), '-b', 'packages/cli', 'packaging'],
    folder,
  );
  process.stdout.write(run('node', ['packaging/dist/release.js', output, '--npm'], folder));
  problems = releaseProblems(folder);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
if (run('git', ['status', '--porcelain'], workspace).length > 0) {
  problems = [...problems, 'there are changes that are not committed, and not part of what was built'];
}
for (const problem of problems) console.error(`release: ${problem}`);
process.exitCode = problems.length > 0 ? 1 : 0;
