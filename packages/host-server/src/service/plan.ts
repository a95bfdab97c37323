import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { OptionError } from '@ivshmem/linux';
import { completeSettings, DEFAULT_SETTINGS } from '../server/options.ts';
import type { ServerArguments } from './arguments.ts';
import { type LinkConfiguration, parseConfiguration } from './configuration.ts';
import type { ServerDialect } from './option-table.ts';
import type { ServeOptions } from './serve.ts';

/** Maximum size of a configuration file in bytes. */
const MAX_CONFIGURATION = 2 ** 24;

/**
 * The links that a command line asks for, checked without touching anything but the configuration file. Throws
 * {@link OptionError}.
 */
export function planLinks(
  given: ServerArguments,
  dialect: ServerDialect,
): Pick<ServeOptions, 'links' | 'reread'> {
  const { config } = given;
  if (config !== null) {
    const first = readConfiguration(config);
    return { links: () => first, reread: () => readConfiguration(config) };
  }
  const { vectors, outputSectionSize } = DEFAULT_SETTINGS;
  // The original has the same defaults for all protocols.
  const defaults = dialect === 'original' ? { vectors, outputSectionSize } : {};
  const settings = completeSettings({ ...defaults, ...given.settings });
  return {
    links(activated) {
      // A socket passed by a service manager replaces the default of -S.
      const [path] = activated;
      const own = given.settings.socketPath === undefined && activated.length === 1 && path !== undefined;
      const socketPath = own ? path : settings.socketPath;
      return [{ name: socketPath, settings: { ...settings, socketPath }, source: '' }];
    },
  };
}

/** Throws {@link OptionError} with the file's name. */
function readConfiguration(path: string): LinkConfiguration[] {
  let text: string;
  try {
    text = readBounded(path);
  } catch (error) {
    throw new OptionError('--config', `${path}: cannot be read: ${(error as Error).message}`);
  }
  try {
    return parseConfiguration(text);
  } catch (error) {
    if (error instanceof OptionError) throw new OptionError(error.option, `${path}: ${error.message}`);
    throw error;
  }
}

/**
 * Reads a regular file. Others are rejected: a device may have no end, a pipe no writer, and neither can be read again at
 * SIGHUP. Throws Error.
 */
function readBounded(path: string): string {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    if (!fstatSync(fd).isFile()) throw new Error('not a regular file');
    const chunks: Buffer[] = [];
    for (let length = 0; ; ) {
      const chunk = Buffer.alloc(65536);
      const read = readSync(fd, chunk);
      if (read === 0) return Buffer.concat(chunks).toString();
      length += read;
      if (length > MAX_CONFIGURATION) throw new Error(`longer than ${MAX_CONFIGURATION} bytes`);
      chunks.push(chunk.subarray(0, read));
    }
  } finally {
    closeSync(fd);
  }
}
