import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseSections, programReferences } from '@ivshmem/cli/reference';
import { commandTables } from '@ivshmem/packaging/reference/command-tables';
import { referenceFiles } from '@ivshmem/packaging/reference/files';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bashOffers, fishOffers, hasProgram, type ShellPlace, typeTab } from '../support/shells.ts';

const command = fileURLToPath(new URL('../../packages/cli/dist/bin/ivshmem.js', import.meta.url));
const programs = await programReferences();
const [ivshmem, original] = programs;
const names = ivshmem!.commands.map(({ name }) => name.split(' ')[1]!);
const help = (...argv: string[]) =>
  spawnSync(process.execPath, [command, ...argv, '--help'], { encoding: 'utf8' }).stdout;
const optionsIn = (text: string) => [...text.matchAll(/^ {2}(-\S+?)(?:,? |\[|$)/gm)].map(([, name]) => name!);

describe('the reference of the commands', () => {
  it('has the commands of ivshmem --help', () => {
    const listed = [
      ...help()
        .split('Commands:')[1]!
        .matchAll(/^ {2}(\w+) [[<]/gm),
    ].map(([, name]) => name!);
    expect([...names, 'help']).toEqual(listed);
    for (const { summary, description } of ivshmem!.commands) {
      expect(summary).toMatch(/^[a-z].*[^.]$/);
      expect(description).toMatch(/\.$/);
    }
  });

  it.each(names)('has the options and examples that ivshmem %s --help shows', (name) => {
    const { groups, sections } = ivshmem!.commands.find((each) => each.name === `ivshmem ${name}`)!;
    const shown = help(name);
    const options = groups.flatMap((group) => group.options);
    expect(options.map((option) => option.names[0])).toEqual(optionsIn(shown));
    const examples = sections.find(({ heading }) => heading === 'Examples')!;
    const lines = examples.parts.flatMap((part) => ('lines' in part ? part.lines : []));
    expect(lines.length).toBeGreaterThan(0);
    for (const line of lines) {
      expect(line).toMatch(/^ivshmem /);
      expect(shown).toContain(line);
    }
  });

  it('reads the sections of help text', () => {
    expect(
      parseSections('\nExamples:\n  To x:\n    a\n    b\n  To y:\n    c\n\nExit codes: 0\n or 1.\n'),
    ).toEqual([
      {
        heading: 'Examples',
        parts: [
          { lead: 'To x:', lines: ['a', 'b'] },
          { lead: 'To y:', lines: ['c'] },
        ],
      },
      { heading: 'Exit codes', parts: [{ text: '0 or 1.' }] },
    ]);
    expect(parseSections('\nExamples:\n  a\n  b\n')).toEqual([
      { heading: 'Examples', parts: [{ lead: '', lines: ['a', 'b'] }] },
    ]);
  });

  it('is what docs/commands.md shows: else run "npm run commands"', () => {
    const page = readFileSync(new URL('../../docs/commands.md', import.meta.url), 'utf8');
    expect(page).toContain(commandTables(programs));
  });
});

describe('generated files', () => {
  let directory: string;
  let place: ShellPlace;
  const files = referenceFiles(programs, new Date(0));

  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'ivshmem-reference-'));
    place = { share: directory, prefix: [] };
    for (const { path, text } of files) {
      mkdirSync(dirname(join(directory, path)), { recursive: true });
      writeFileSync(join(directory, path), text);
    }
    writeFileSync(join(directory, 'some-file'), '');
  });
  afterAll(() => rmSync(directory, { recursive: true }));

  it('are a manual page for each command, and completion of each program', () => {
    expect(files.map(({ path }) => path)).toEqual([
      ...['ivshmem', ...names.map((name) => `ivshmem-${name}`)].map((name) => `man/man1/${name}.1`),
      'bash-completion/completions/ivshmem',
      'zsh/vendor-completions/_ivshmem',
      'fish/vendor_completions.d/ivshmem.fish',
      'man/man1/ivshmem2-server.1',
      'bash-completion/completions/ivshmem2-server',
      'zsh/vendor-completions/_ivshmem2-server',
      'fish/vendor_completions.d/ivshmem2-server.fish',
    ]);
  });

  it('are manual pages with all options', () => {
    for (const { name, groups } of [...ivshmem!.commands, original!]) {
      const path = `man/man1/${name.replace(' ', '-')}.1`;
      const page = files.find((file) => file.path === path)!.text.replaceAll('\\-', '-');
      for (const option of groups.flatMap(({ options }) => options)) {
        for (const optionName of option.names) expect(page).toContain(`\\fB${optionName}\\fR`);
      }
      expect(page).toMatch(/^\.TH IVSHMEM\S* 1 1970-01-01 "ivshmem \d/m);
    }
  });

  describe('in bash', () => {
    it('offer commands, options and values', () => {
      const offers = (...words: string[]) => bashOffers(place, ...words);
      expect(offers('ivshmem', '')).toEqual([...names, 'help']);
      expect(offers('ivshmem', 'help', 'de')).toEqual(names.filter((name) => name.startsWith('de')));
      for (const { name, groups } of ivshmem!.commands) {
        const options = groups.flatMap((group) =>
          group.options.flatMap((option) =>
            option.names.map((each) => (option.isValueOptional ? `${each}=` : each)),
          ),
        );
        expect(offers('ivshmem', name.split(' ')[1]!, '-')).toEqual(options);
      }
      expect(offers('ivshmem', 'net', '--irq', '')).toEqual(['vfio', 'poll']);
      expect(offers('ivshmem', 'net', '--irq', '=', 'p')).toEqual(['poll']);
      expect(offers('ivshmem', 'net', '--irq', '=')).toEqual(['vfio', 'poll']);
      expect(offers('ivshmem', '--verbose', 'net', '--pci', '')).toEqual(['auto']);
      expect(offers('ivshmem', 'net', '--tap', 'l')).toContain('lo');
      expect(offers('ivshmem', 'net', '--mtu', '')).toEqual([]);
      expect(offers('ivshmem', 'device', '--group', 'roo')).toEqual(['root']);
      expect(offers('ivshmem', 'server', '--allow-uid', 'nobod')).toEqual(['nobody']);
      expect(offers('ivshmem', 'net', '-S', `${directory}/some`)).toEqual([`${directory}/some-file`]);
      expect(offers('ivshmem2-server', '-m', `${directory}/`)).not.toContain(`${directory}/some-file`);
      expect(offers('ivshmem2-server', '-S', `${directory}/some`)).toEqual([`${directory}/some-file`]);
      expect(offers('ivshmem2-server', '-')).toContain('-V');
    });

    it.skipIf(!hasProgram('script'))('complete a line as it is typed', async () => {
      await typeTab('bash', place, 'ivshmem net --addr', 'ivshmem net --address ');
      await typeTab('bash', place, `ivshmem net --socket ${directory}/so`, `${directory}/some-file `);
    });
  });

  it.skipIf(!hasProgram('zsh') || !hasProgram('script'))('complete a line in zsh', async () => {
    await typeTab('zsh', place, 'ivshmem pee', 'ivshmem peers ');
    await typeTab('zsh', place, 'ivshmem net --addr', 'ivshmem net --address');
    await typeTab('zsh', place, 'ivshmem net --irq v', 'ivshmem net --irq vfio');
    await typeTab('zsh', place, `ivshmem net -S ${directory}/so`, `${directory}/some-file`);
  });

  it.skipIf(!hasProgram('fish'))('offer the same in fish', () => {
    const offers = (line: string) => fishOffers(place, line);
    expect(offers('ivshmem ').sort()).toEqual([...names, 'help'].sort());
    expect(offers('ivshmem net --addr')).toEqual(['--address']);
    expect(offers('ivshmem net --irq ').sort()).toEqual(['poll', 'vfio']);
    expect(offers('ivshmem net --tap l')).toContain('lo');
    expect(offers(`ivshmem net -S ${directory}/so`)).toEqual([`${directory}/some-file`]);
    expect(offers('ivshmem2-server -')).toContain('-V');
  });
});
