import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { DaemonReport } from './daemon.ts';
import type { ServerDialect } from './option-table.ts';

/**
 * Starts a host server as a daemon: in a new process and session, without standard streams. Resolves when clients can
 * connect, with the failed links and metrics; rejects with the reason if it cannot be started.
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
          `the daemon exited with ${daemon.signalCode ?? `status ${daemon.exitCode}`} before it was listening`,
        ),
      );
    };
    // A report always arrives before `disconnect`; `exit` may be emitted before the report.
    daemon.once('disconnect', () => {
      if (daemon.exitCode !== null || daemon.signalCode !== null) died();
      else daemon.once('exit', died);
    });
  });
}
