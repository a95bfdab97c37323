#!/usr/bin/env node
// Here, and not in dist, so that npm can link it before anything is built.
import('../dist/bin/ivshmem2-server.js').catch(({ message }) => {
  process.stderr.write(
    `ivshmem2-server: ${message.split('\n')[0]}: in a checkout, run "npm ci && npm run build" first\n`,
  );
  process.exitCode = 1;
});
