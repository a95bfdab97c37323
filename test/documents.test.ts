import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { serverUsage } from '@ivshmem/host-server/service';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));
const text = (path: string) => readFileSync(path, 'utf8');

function filesBelow(directory: string, pattern: RegExp): string[] {
  return readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) return entry.name === 'node_modules' ? [] : filesBelow(path, pattern);
    return pattern.test(entry.name) ? [path] : [];
  });
}

const pages = [
  ...readdirSync(root)
    .filter((name) => name.endsWith('.md'))
    .map((name) => join(root, name)),
  ...['docs', 'packages', 'examples', 'packaging'].flatMap((name) => {
    return existsSync(join(root, name)) ? filesBelow(join(root, name), /\.md$/) : [];
  }),
];

/** What GitHub calls the headings of a page in its addresses. */
function anchors(page: string): Set<string> {
  const prose = text(page).replace(/^```.*?^```$/gms, '');
  const headings = [...prose.matchAll(/^#+ (.*)$/gm)].map(([, heading]) => heading!);
  return new Set(
    headings.map((heading) =>
      heading
        .toLowerCase()
        .replace(/[^\p{L}\p{N} _-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  );
}

it.each(pages.map((page) => relative(root, page)))('%s links files and headings that exist', (name) => {
  const page = join(root, name);
  const broken = [...text(page).matchAll(/\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?\)/g)].filter(
    ([, path, anchor]) => {
      const target = path === '' ? page : join(dirname(page), path!);
      if (!existsSync(target)) return true;
      return anchor !== undefined && !statSync(target).isDirectory() && !anchors(target).has(anchor);
    },
  );
  expect(broken.map(([link]) => link)).toEqual([]);
});

it.each(['docs/architecture.md', 'docs/handshake.md', 'docs/conformance.md', 'CONTRIBUTING.md'])(
  '%s names files and folders that exist',
  (name) => {
    const paths = [
      ...text(join(root, name)).matchAll(/`((?:packages|bench|test|docs|examples)\/[\w./-]+)`/g),
    ];
    const missing = paths.map(([, path]) => path!).filter((path) => !existsSync(join(root, path)));
    expect(missing).toEqual([]);
  },
);

it('docs/host-server.md shows the usage of `ivshmem server`, as it is', () => {
  const shown = /<!-- output: usage -->\n```\n(.*?)```/s.exec(text(join(root, 'docs/host-server.md')))![1]!;
  expect(shown.trim()).toBe(serverUsage('ivshmem server', 'extended').trim());
  expect(shown).not.toContain('$');
});

it.each(pages.map((page) => relative(root, page)))(
  '%s quotes code that is in the file that it names',
  (name) => {
    const quotes = text(join(root, name)).matchAll(/<!-- from: (\S+) -->\n```\w*\n(.*?)^```$/gms);
    for (const [, path, code] of quotes) expect(text(join(root, path!))).toContain(code);
  },
);

describe('docs/troubleshooting.md', () => {
  const sources = filesBelow(join(root, 'packages'), /(?<!\.test|\.d)\.ts$/)
    .map(text)
    .join('\n');
  /** What the system says, or another program; and words that are commands. */
  const isOthers = (line: string) => /: E[A-Z]+$|^E[A-Z]+$|^[a-z]+( [a-z]+)?$/.test(line);

  it('quotes lines that are in the sources', () => {
    const rows = text(join(root, 'docs/troubleshooting.md')).match(/^\| .* \|$/gm)!;
    const symptoms = rows.map((row) => row.split(' | ')[0]!).filter((cell) => !cell.includes('QEMU:'));
    const quoted = symptoms.flatMap((cell) => [...cell.matchAll(/`([^`]+)`/g)].map(([, line]) => line!));
    expect(quoted.length).toBeGreaterThan(30);
    const missing = quoted.filter((line) => {
      return !isOthers(line) && !line.split('…').every((part) => sources.includes(part.trim()));
    });
    expect(missing).toEqual([]);
  });
});
