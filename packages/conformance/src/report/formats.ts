import { jsonReport } from './json.ts';
import { junitReport } from './junit.ts';
import { peopleReport } from './people.ts';
import type { Report } from './report.ts';
import { tapReport } from './tap.ts';

/** The formats of a report, by name. */
export const reportFormats: Readonly<Record<string, () => Report>> = {
  people: peopleReport,
  tap: tapReport,
  junit: junitReport,
  json: jsonReport,
};
