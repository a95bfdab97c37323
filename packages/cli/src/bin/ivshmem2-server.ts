#!/usr/bin/env node
import { runServer } from '@ivshmem/host-server';

// Whoever reads the log may go; the server stays.
process.stdout.on('error', () => {});
process.stderr.on('error', () => {});
process.exitCode = await runServer(process.argv.slice(2), process);
