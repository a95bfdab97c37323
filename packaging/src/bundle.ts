import { chmodSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { type BuildOptions, build, type Plugin } from 'esbuild';

/** `new URL('../dist/link-worker.js', import.meta.url)`: a file that is started as a thread or a process, or read. */
const FILE_URL = /new URL\('([^']+)', import\.meta\.url\)/g;

/**
 * The programs in few files, for `folder`: no packages are needed to run them. All files are in one folder, since threads
 * and processes are started from files; a `package.json` is expected above it, and the binaries of koffi in `koffi`
 * beside them (see koffi.ts). `node` is the interpreter that the commands name in their first line. Reads what
 * `npm run build` has made in `workspace`. Deterministic. Returns the folders of the packages that code was taken from, by
 * their paths in `workspace`.
 */
export async function bundle(workspace: string, folder: string, node: string): Promise<readonly string[]> {
  const packages = join(workspace, 'packages');
  const commands = ['ivshmem', 'ivshmem2-server'].map((name) => join(packages, 'cli/dist/bin', `${name}.js`));
  const started = new Set<string>();
  for (const file of filesBelow(packages, /\/dist\/.*\.js$/)) {
    for (const [, path] of readFileSync(file, 'utf8').matchAll(FILE_URL)) {
      if (path!.endsWith('.js')) started.add(resolve(dirname(file), path!));
    }
  }
  for (const command of commands) started.delete(command);
  const named = (files: Iterable<string>) =>
    Object.fromEntries([...files].sort().map((file) => [entryName(packages, file), file]));
  const options: BuildOptions = {
    absWorkingDir: workspace,
    outdir: folder,
    bundle: true,
    format: 'esm',
    platform: 'node',
    target: 'node20.19',
    minify: true,
    legalComments: 'none',
    chunkNames: 'chunk-[hash]',
    logLevel: 'warning',
    metafile: true,
    // CommonJS packages load modules of Node.js with it.
    banner: {
      js: "import{createRequire as __require}from'node:module';const require=__require(import.meta.url);",
    },
    alias: { rxjs: join(workspace, 'node_modules/rxjs/dist/esm/index.js') },
    plugins: [nativeKoffi, fileUrls(packages)],
  };
  // A command loads what it needs alone. A thread has nothing in common with it, and is one file: each takes time to load.
  const results = [
    await build({ ...options, entryPoints: named(commands), splitting: true }),
    await build({ ...options, entryPoints: named(started) }),
  ];
  for (const name of Object.keys(named(commands))) {
    const file = join(folder, `${name}.js`);
    writeFileSync(file, `#!${node}\n${readFileSync(file, 'utf8')}`);
    chmodSync(file, 0o755);
  }
  return packagesOf(results.flatMap(({ metafile }) => Object.keys(metafile!.inputs)));
}

/** Of input files, by their paths. koffi is found by hand. */
function packagesOf(inputs: readonly string[]): readonly string[] {
  const names = inputs.map((input) => /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/.exec(input)?.[0]);
  return [...new Set([...names.filter((name) => name !== undefined), 'node_modules/koffi'])].sort();
}

/** Flat: `cli-bin-ivshmem` of packages/cli/dist/bin/ivshmem.js, but `ivshmem` for that command. */
function entryName(packages: string, file: string): string {
  const name = relative(packages, file).replace('/dist/', '/').replace(/\.js$/, '').replaceAll('/', '-');
  return name.replace(/^cli-bin-/, '');
}

/** Has files that are started or read found in the bundle. Throws an Error for one that it does not have. */
function fileUrls(packages: string): Plugin {
  const place = (from: string, url: string): string => {
    const file = resolve(dirname(from), url);
    if (file === join(packages, 'cli/package.json')) return '../package.json';
    if (file.endsWith('.js') && existsSync(file)) return `./${entryName(packages, file)}.js`;
    throw new Error(`${from}: the bundle has no ${url}`);
  };
  return {
    name: 'file-urls',
    setup({ onLoad }) {
      onLoad({ filter: /\/packages\/[^/]+\/dist\/.*\.js$/ }, ({ path }) => ({
        contents: readFileSync(path, 'utf8').replace(
          FILE_URL,
          (_, url: string) => `new URL('${place(path, url)}', import.meta.url)`,
        ),
      }));
    },
  };
}

/** koffi's own code to find its binary takes long, and is for packages. */
const nativeKoffi: Plugin = {
  name: 'native-koffi',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^koffi$/ }, () => ({ path: 'koffi', namespace: 'native' }));
    onLoad({ filter: /.*/, namespace: 'native' }, () => ({ contents: LOAD_KOFFI, resolveDir: '/' }));
  },
};

/** The binary for musl is tried if that for glibc can't be loaded. */
const LOAD_KOFFI = `
import { fileURLToPath } from 'node:url';
function load(libc) {
  const module = { exports: {} };
  process.dlopen(module, fileURLToPath(new URL('./koffi/' + libc + '_' + process.arch + '.node', import.meta.url)));
  return module.exports;
}
let koffi;
try {
  koffi = load('linux');
} catch (error) {
  try { koffi = load('musl'); } catch { throw error; }
}
export default koffi;
`;

function filesBelow(folder: string, pattern: RegExp): string[] {
  return readdirSync(folder, { withFileTypes: true })
    .flatMap((entry) => {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) return entry.name === 'node_modules' ? [] : filesBelow(path, pattern);
      return pattern.test(path) ? [path] : [];
    })
    .sort();
}
