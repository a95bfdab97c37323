import { printable } from '@ivshmem/linux/process';
import { standardOutput } from '../output/standard-output.ts';
import { findLinks } from './find-link.ts';

// What Wireshark asks of a program in its extcap folder. Source: extcap(4).

/** Answers a question of Wireshark's. Returns false if it has asked none: it wants a capture. */
export async function runExtcap(options: Extcap, version: string): Promise<boolean> {
  if (options.extcapInterfaces) await listInterfaces(version);
  else if (options.extcapDlts) print('dlt {number=1}{name=EN10MB}{display=Ethernet}');
  else return options.extcapConfig === true;
  return true;
}

/** Options of the command that are questions. */
interface Extcap {
  readonly extcapInterfaces?: boolean;
  readonly extcapDlts?: boolean;
  readonly extcapConfig?: boolean;
}

async function listInterfaces(version: string): Promise<void> {
  print(`extcap {version=${version}}{display=ivshmem links}`);
  for (const { name, socket, ends } of await findLinks()) {
    const taps = ends.map(({ tap }) => tap).join(', ');
    print(
      `interface {value=${quoted(socket)}}{display=ivshmem ${quoted(taps === '' ? name : `${name} (${taps})`)}}`,
    );
  }
}

/** Wireshark splits at braces. */
function quoted(text: string): string {
  return printable(text).replace(/[{}]/g, '_');
}

function print(line: string): void {
  standardOutput().write(`${line}\n`);
}
