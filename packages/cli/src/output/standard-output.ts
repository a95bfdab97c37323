/** Standard output of a command that ends by itself: it waits for its reader, and ignores that the reader has gone. */
export function standardOutput(): NodeJS.WriteStream {
  if (process.stdout.listenerCount('error') === 0) process.stdout.on('error', () => {});
  return process.stdout;
}
