import { expect, it } from 'vitest';
import { HEALTHY_AFTER, RestartPolicy } from './restart-policy.ts';

it('starts a process again at once, then ever later, and gives up', () => {
  const policy = new RestartPolicy(10);
  const delays = Array.from({ length: 10 }, () => policy.failed({ readyFor: undefined }));
  expect(delays).toEqual([0, 100, 200, 400, 800, 1600, 3200, 5000, 5000, null]);
});

it('starts anew after a healthy run', () => {
  const policy = new RestartPolicy(3);
  const short = { readyFor: HEALTHY_AFTER - 1 };
  const healthy = { readyFor: HEALTHY_AFTER };
  expect([short, short, healthy, short, healthy, short, short].map((run) => policy.failed(run))).toEqual([
    0,
    100,
    0,
    100,
    0,
    100,
    null,
  ]);
});

it('does not start a process again that is to be tried once', () => {
  expect(new RestartPolicy(1).failed({ readyFor: 1e6 })).toBeNull();
});
