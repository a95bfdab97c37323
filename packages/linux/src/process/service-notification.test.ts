import { expect, it } from 'vitest';
import { serviceNotifier } from './service-notification.ts';

it('is silent without a service manager, and says why one cannot be reached', () => {
  expect(serviceNotifier(undefined).ready('x')).toBeNull();
  expect(serviceNotifier('/nonexistent/notify').stopping()).toBe(
    'sendto /nonexistent/notify: ENOENT: no such file or directory',
  );
});
