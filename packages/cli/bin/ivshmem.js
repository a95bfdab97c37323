#!/usr/bin/env node
// Here, and not in dist, so that npm can link it before anything is built.
import('../dist/bin/ivshmem.js').catch(({ message }) => {
  process.stderr.write(
    `ivshmem: ${message.split('\n')[0]}: in a checkout, run "npm ci && npm run build" first\n`,
  );
  process.exitCode = 1;
});
