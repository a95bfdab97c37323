import { readFileSync, writeFileSync } from 'node:fs';
import { withRecording } from './trace/page.ts';

// `npm run trace`: records a link, and writes into docs/trace.md what each participant did.

const PAGE = new URL('../../docs/trace.md', import.meta.url);

writeFileSync(PAGE, withRecording(readFileSync(PAGE, 'utf8')));
