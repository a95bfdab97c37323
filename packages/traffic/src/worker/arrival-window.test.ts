import { expect, it } from 'vitest';
import { ArrivalWindow } from './arrival-window.ts';

function counted(sequences: Iterable<number>) {
  const window = new ArrivalWindow();
  for (const sequence of sequences) window.arrive(sequence);
  const { received, reordered, duplicates } = window;
  return { received, reordered, duplicates };
}

it('distinguishes late datagrams from duplicates', () => {
  expect(counted([0, 1, 2, 3])).toEqual({ received: 4, reordered: 0, duplicates: 0 });
  expect(counted([3, 1, 2, 5])).toEqual({ received: 4, reordered: 2, duplicates: 0 });
  expect(counted([0, 0, 1, 0, 1])).toEqual({ received: 2, reordered: 0, duplicates: 3 });
  expect(counted([65535, 131071, 0, 65536, 65536])).toEqual({ received: 4, reordered: 2, duplicates: 1 });
});
