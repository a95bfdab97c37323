import type { ProgramReference } from '@ivshmem/cli/reference';
import { bashCompletion } from './bash.ts';
import { fishCompletion } from './fish.ts';
import { manPage, pageName } from './man-page.ts';
import { zshCompletion } from './zsh.ts';

/** A file to install. */
export interface ReferenceFile {
  /** Below the folder for data that does not depend on the architecture, such as /usr/share. */
  readonly path: string;
  readonly text: string;
}

/** Manual pages and shell completion of all programs, where Debian's shells look for them. */
export function referenceFiles(programs: readonly ProgramReference[], date: Date): readonly ReferenceFile[] {
  return programs.flatMap((program) => [
    ...[program, ...program.commands].map((command) => ({
      path: `man/man1/${pageName(command)}.1`,
      text: manPage(command, program, date),
    })),
    { path: `bash-completion/completions/${program.name}`, text: bashCompletion(program) },
    { path: `zsh/vendor-completions/_${program.name}`, text: zshCompletion(program) },
    { path: `fish/vendor_completions.d/${program.name}.fish`, text: fishCompletion(program) },
  ]);
}
