import { expect, it } from 'vitest';
import { serviceNotifier } from './service-notification.ts';

it('does nothing without a service manager, and reports why one cannot be reached', () => {
  expect(serviceNotifier(undefined).ready('x')).toBeNull();
  expect(serviceNotifier('/nonexistent/notify').stopping()).toBe(
    'sendto /nonexistent/notify: ENOENT: no such file or directory',
  );
});
