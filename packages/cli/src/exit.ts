/** Exit codes of all commands. */
export const EXIT_OK = 0;
export const EXIT_FAILURE = 1;
export const EXIT_USAGE = 2;

/** A mistake in the arguments, as opposed to a failure on this machine: exit code 2. */
export class UsageError extends Error {}
