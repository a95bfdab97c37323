import { clientChecks } from './checks/clients.ts';
import { departureChecks } from './checks/departure.ts';
import { initChecks } from './checks/init.ts';
import { optionChecks } from './checks/options.ts';
import { orderChecks } from './checks/order.ts';
import type { ServerCheck } from './subject.ts';

/** All checks of a host server, in their order. */
export const serverChecks: readonly ServerCheck[] = [
  ...initChecks,
  ...orderChecks,
  ...departureChecks,
  ...clientChecks,
  ...optionChecks,
];
