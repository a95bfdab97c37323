import * as libc from '../libc.ts';
import { OptionError } from '../option-error.ts';

/** The largest uid or gid: the next one means "leave it as it is". Source: chown(2). */
export const MAX_ID = 0xfffffffe;

function numberOf(kind: 'user' | 'group', text: string, find: (name: string) => number | null): number {
  if (/^\d+$/.test(text)) {
    const number = Number(text);
    if (number <= MAX_ID) return number;
    throw new OptionError(kind, `${kind} ${text}: must be a name, or a number up to ${MAX_ID}`);
  }
  const number = text === '' || text.includes('\0') ? null : find(text);
  if (number === null) {
    throw new OptionError(kind, `${kind} ${JSON.stringify(text)}: this system has none of that name`);
  }
  return number;
}

/** The uid of a user, given by name or number. Throws {@link OptionError}. */
export function userId(text: string): number {
  return numberOf('user', text, libc.getpwnam);
}

/** The gid of a group, given by name or number. Throws {@link OptionError}. */
export function groupId(text: string): number {
  return numberOf('group', text, libc.getgrnam);
}
