import type { TestProject } from 'vitest/node';
import { vmSoftware } from './src/software.ts';

declare module 'vitest' {
  interface ProvidedContext {
    /** Why no virtual machine can be started here, in one line; null if they can. */
    vmObstacle: string | null;
  }
}

/** Fetches and packs what guests are started from, once before all tests, which have a limit of time. */
export function setup(project: TestProject): void {
  project.provide('vmObstacle', obstacle());
}

function obstacle(): string | null {
  try {
    vmSoftware(console.log);
    return null;
  } catch (error) {
    return (error as Error).message;
  }
}
