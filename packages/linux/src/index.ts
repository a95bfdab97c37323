export * from './constants.ts';
export { check, limitRemedy, PATH_REMEDIES, SystemCallError, threadError } from './errors.ts';
export { closeFd, duplicateFd, setNonBlocking } from './fd.ts';
// Unchecked, for hot paths: after -1, errno() returns the cause.
export { errno, read, readv, recv, schedYield as yieldProcessor, send, write, writev } from './libc.ts';
export { checkOption, checkWholeNumber, OptionError } from './option-error.ts';
