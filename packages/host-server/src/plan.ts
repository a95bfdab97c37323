import { readFileSync } from 'node:fs';
import type { ServerArguments } from './arguments.ts';
import { ConfigurationError, type LinkConfiguration, parseConfiguration } from './configuration.ts';
import { completeSettings } from './options.ts';
import type { ServeOptions } from './serve.ts';

/**
 * The links that a command line asks for, checked without touching anything but the configuration file. Throws
 * HostServerOptionError, LayoutError and {@link ConfigurationError}.
 */
export function planLinks(given: ServerArguments): Pick<ServeOptions, 'links' | 'reread'> {
  const { config } = given;
  if (config !== null) {
    const first = readConfiguration(config);
    return { links: () => first, reread: () => readConfiguration(config) };
  }
  const settings = completeSettings(given.settings);
  return {
    links(activated) {
      // A service manager says where to listen as well as -S does.
      const [path] = activated;
      const own = given.settings.socketPath === undefined && activated.length === 1 && path !== undefined;
      const socketPath = own ? path : settings.socketPath;
      return [{ name: socketPath, settings: { ...settings, socketPath }, source: '' }];
    },
  };
}

/** Throws {@link ConfigurationError}, which names the file. */
function readConfiguration(path: string): LinkConfiguration[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new ConfigurationError(`${path}: ${(error as NodeJS.ErrnoException).code}: cannot be read`);
  }
  try {
    return parseConfiguration(text);
  } catch (error) {
    if (error instanceof ConfigurationError) throw new ConfigurationError(`${path}: ${error.message}`);
    throw error;
  }
}
