import {
  type Check,
  conforms,
  listChecks,
  reportFormats,
  runChecks,
  ServerSubject,
  type Subject,
  selectChecks,
  serverChecks,
  serverCommand,
} from '@ivshmem/conformance';
import { OptionError } from '@ivshmem/linux';
import { raiseOpenFilesLimit } from '@ivshmem/linux/process';
import { EXIT_FAILURE, EXIT_OK } from '../exit.ts';
import { standardOutput } from '../output/standard-output.ts';
import { openStopSignal } from '../stop-signal.ts';
import type { CheckOptions, SubjectName } from './check.ts';

/** Checks a subject, or lists its checks. */
export async function check(subject: SubjectName, options: CheckOptions): Promise<number> {
  return await subjects[subject](options);
}

const subjects: Record<SubjectName, (options: CheckOptions) => Promise<number>> = { server: checkServer };

async function checkServer(options: CheckOptions): Promise<number> {
  return await checkSubject(options, serverChecks, () => {
    const { command, socket } = options;
    if ((command === undefined) === (socket === undefined)) {
      throw new OptionError('--command', 'give either --command or --socket');
    }
    // One socket for each of 1024 clients.
    raiseOpenFilesLimit();
    return new ServerSubject({ server: socket ?? serverCommand(command!) });
  });
}

async function checkSubject<Context>(
  { list, only, seed = Math.floor(Math.random() * 2 ** 32), format }: CheckOptions,
  checks: readonly Check<Context>[],
  open: () => Subject<Context>,
): Promise<number> {
  const output = standardOutput();
  const selected = selectChecks(checks, only);
  if (list) {
    output.write(listChecks(selected));
    return EXIT_OK;
  }
  using stopping = openStopSignal(false);
  await using subject = open();
  const report = reportFormats[format]!();
  output.write(report.begin(selected, seed));
  const results = await runChecks(subject, selected, {
    seed,
    stop: stopping.signal,
    report: (result) => output.write(report.result(result)),
  });
  output.write(report.end(results));
  return conforms(results) && !stopping.signal.aborted ? EXIT_OK : EXIT_FAILURE;
}
