/**
 * Standard output of a command that ends by itself: it waits for its reader, and ignores that the reader has gone. Any
 * other write error, such as a full disk, is reported, and the command fails.
 */
export function standardOutput(): NodeJS.WriteStream {
  if (process.stdout.listenerCount('error') === 0) process.stdout.on('error', onError);
  return process.stdout;
}

async function onError({ code, message }: NodeJS.ErrnoException): Promise<void> {
  if (code === 'EPIPE') return;
  const { reportError } = await import('../error-report.ts');
  const exitCode = await reportError(new Error(`write error: ${message}`), false);
  // The command may set its own exit code later.
  process.once('exit', () => {
    process.exitCode = exitCode;
  });
}
