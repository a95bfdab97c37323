import { inject } from 'vitest';
import { describeWhere } from '../support/requirements.ts';

/** `describe` for tests with virtual machines. */
export function describeVm(name: string, tests: () => void): void {
  describeWhere(inject('vmObstacle'), name, tests);
}
