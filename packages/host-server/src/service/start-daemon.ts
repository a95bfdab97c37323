import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { ServerDialect } from './arguments.ts';
import type { DaemonReport } from './daemon.ts';

/**
 * Starts a host server in a process of its own, in a session of its own and without standard streams, and waits until
 * clients can connect. Returns what does not work although it runs; rejects with the reason if it could not start.
 */
export function startDaemon(argv: readonly string[], dialect: ServerDialect): Promise<readonly string[]> {
  return new Promise((resolve, reject) => {
    const daemon = fork(
      fileURLToPath(new URL('../../dist/service/daemon.js', import.meta.url)),
      [dialect, ...argv],
      {
        detached: true,
        execArgv: [],
        stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
      },
    );
    daemon.once('error', reject);
    daemon.once('message', (report: DaemonReport) => {
      if ('failure' in report) return reject(new Error(report.failure));
      daemon.unref();
      resolve(report.problems);
    });
    const died = () => {
      reject(
        new Error(
          `the daemon ended with ${daemon.signalCode ?? `status ${daemon.exitCode}`} before it listened`,
        ),
      );
    };
    // The report, if there is one, always comes before this; the exit may be seen before the report.
    daemon.once('disconnect', () => {
      if (daemon.exitCode !== null || daemon.signalCode !== null) died();
      else daemon.once('exit', died);
    });
  });
}
