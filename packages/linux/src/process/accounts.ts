import * as libc from '../libc.ts';

const MAX_NUMBER = 0xfffffffe;

function numberOf(kind: 'user' | 'group', text: string, find: (name: string) => number | null): number {
  if (/^\d+$/.test(text)) {
    const number = Number(text);
    if (number <= MAX_NUMBER) return number;
    throw new RangeError(`${kind} ${text}: must be a name, or a number up to ${MAX_NUMBER}`);
  }
  const number = text === '' || text.includes('\0') ? null : find(text);
  if (number === null) {
    throw new RangeError(`${kind} ${JSON.stringify(text)}: this system has none of that name`);
  }
  return number;
}

/** The uid of a user, given by name or number. Throws RangeError. */
export function userId(text: string): number {
  return numberOf('user', text, libc.getpwnam);
}

/** The gid of a group, given by name or number. Throws RangeError. */
export function groupId(text: string): number {
  return numberOf('group', text, libc.getgrnam);
}
