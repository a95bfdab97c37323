import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { missingPrograms } from './programs.ts';

// The C programs that this stack is measured against, compiled on demand.

const COMPILER = 'cc';
const FLAGS = ['-std=c11', '-O2', '-Wall', '-Wextra', '-Werror'] as const;
const SOURCES = new URL('../reference/', import.meta.url);
const BUILD = new URL('../build/', import.meta.url);

/** Why the C reference cannot be compiled here, in one line with the remedy; null if it can. */
export function missingCompiler(): string | null {
  return missingPrograms([COMPILER], 'gcc libc6-dev');
}

/**
 * The path of a program in bench/reference, compiled with -O2 unless that was done before: what is kept in bench/build has
 * a digest of sources and flags in its name. Throws Error, with what the compiler said, if it cannot be compiled.
 */
export function cReference(program: 'ring-bench' | 'tap-link'): string {
  const source = fileURLToPath(new URL(`${program}.c`, SOURCES));
  const digest = createHash('sha256').update(FLAGS.join(' '));
  for (const path of [source, new URL('ring.h', SOURCES)]) digest.update(readFileSync(path));
  const executable = fileURLToPath(new URL(`${program}-${digest.digest('hex').slice(0, 16)}`, BUILD));
  if (existsSync(executable)) return executable;
  mkdirSync(BUILD, { recursive: true });
  // Renamed when it is complete, since other processes may look for it.
  const unfinished = `${executable}.${process.pid}`;
  const { status, stderr, error } = spawnSync(COMPILER, [...FLAGS, '-o', unfinished, source], {
    encoding: 'utf8',
  });
  if (status !== 0) {
    rmSync(unfinished, { force: true });
    throw new Error(
      `${source} cannot be compiled: ${error?.message ?? stderr.trim().replaceAll(/\s*\n\s*/g, ' ')}`,
    );
  }
  renameSync(unfinished, executable);
  return executable;
}
