import { readdirSync, readFileSync } from 'node:fs';

/**
 * CPU time that all threads of these processes have used so far, in ns. Threads that have ended do not count. Source:
 * Documentation/scheduler/sched-stats.rst of Linux. Throws Error where a process is gone.
 */
export function cpuTime(pids: readonly number[]): number {
  let sum = 0;
  for (const pid of pids) {
    // /proc/<pid>/schedstat is about the first thread only.
    for (const thread of readdirSync(`/proc/${pid}/task`)) {
      sum += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]);
    }
  }
  return sum;
}
