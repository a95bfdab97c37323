import { type ServerDialect, type ServerOption, serverOptions } from './option-table.ts';

/** Of the help, in columns. */
const WIDTH = 90;

/** The --help text: the options of the original host server; with the extended dialect also the long ones. */
export function serverUsage(program: string, dialect: ServerDialect = 'original'): string {
  const groups = serverOptions(dialect).map(
    ({ heading, options }) =>
      `${heading === '' ? '' : `\n${heading}:\n`}${options.map((option) => optionLines(option, heading === '' ? 12 : 22)).join('')}`,
  );
  const parts = [`Usage: ${program} [OPTION]...\n${groups.join('')}`, `${SERVER_NOTES}\n`];
  if (dialect === 'original') return parts.join('');
  return [...parts, `\nExamples:\n${SERVER_EXAMPLES}`].join('');
}

/** What holds for all options, for the help. */
export const SERVER_NOTES = `
Sizes are in bytes, or have a suffix: K, M, G or T. Numbers may be hexadecimal (0x...).
A sealed memfd cannot be truncated by clients and allocates memory as it is used. With -M
and -m, clients can truncate the memory, and all of it is reserved at startup.
Exit status: 0 after SIGINT or SIGTERM, 1 on failure, 2 for an invalid option.`;

/** Each with a line that says what it is for. */
export const SERVER_EXAMPLES = `  Ethernet between two peers, in the foreground:
    ivshmem server -F -S /run/ivshmem.sock -P 1
  As a daemon, with memory that other programs can open by name:
    ivshmem server -S /run/ivshmem.sock -M ivshmem -P 1 -p /run/ivshmem.pid
  Three peers that share a read/write section in huge pages, open to group kvm:
    ivshmem server -F -l 64M -n 3 --hugepages --mode 660 --group kvm
  All links of a host, with metrics on port 16646 of the loopback interface:
    ivshmem server -F --config /etc/ivshmem/links.json --metrics 16646
  List the connected peers:
    ivshmem peers -S /run/ivshmem.sock
`;

/** An option, with its text from a column on, in lines of at most {@link WIDTH}. */
function optionLines({ name, kind, value, text }: ServerOption, column: number): string {
  const attached = { flag: '', value: ` ${value}`, optional: `[=${value}]` }[kind];
  const lines: string[] = [];
  let line = `  ${name}${attached} `.padEnd(column - 1);
  for (const word of text.split(' ')) {
    if (line.length + 1 + word.length > WIDTH) {
      lines.push(line);
      line = ' '.repeat(column - 1);
    }
    line += ` ${word}`;
  }
  return [...lines, line].map((each) => `${each}\n`).join('');
}
