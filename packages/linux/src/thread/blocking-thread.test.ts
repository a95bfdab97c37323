import { execFile } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, it } from 'vitest';
import { SystemCallError } from '../errors.ts';
import { preloadThread, startBlockingThread } from './index.ts';

const root = JSON.stringify(new URL('../../dist/index.js', import.meta.url).href);
const wait = JSON.stringify(new URL('../../dist/wait/index.js', import.meta.url).href);
const thread = JSON.stringify(new URL('../../dist/thread/index.js', import.meta.url).href);

/** The file of a thread; `body` knows `input`, `stopFd`, `tell`, and `untilStopped()`. */
function threadFile(body: string): URL {
  const source = `
    import { Epoll, EPOLLIN, signalEventFd } from ${wait};
    import { runBlockingThread } from ${thread};
    runBlockingThread((input, stopFd, tell) => {
      const untilStopped = () => {
        const epoll = new Epoll();
        epoll.add(stopFd, EPOLLIN, () => {});
        epoll.wait(-1);
        epoll.close();
      };
      ${body}
    });`;
  return new URL(`data:text/javascript,${encodeURIComponent(source)}`);
}

interface Message {
  readonly type: string;
  readonly text?: string;
}

async function start(body: string, signal?: AbortSignal) {
  const messages: Message[] = [];
  const thread = await startBlockingThread<Message>({
    file: threadFile(body),
    input: 'the input',
    upWith: 'up',
    receive: (message) => messages.push(message),
    signal,
  });
  return { thread, messages };
}

const openFds = () => readdirSync('/proc/self/fd').length;

describe('startBlockingThread', () => {
  // Node keeps some descriptors of the first thread.
  beforeAll(() => expect(start('')).rejects.toThrow());

  it('uses a thread that was loaded before, once', async () => {
    const before = openFds();
    const body = `const loaded = globalThis.loaded; tell({ type: 'up', text: String(loaded) + input }); untilStopped();`;
    const file = new URL(`${threadFile(body).href}%0AglobalThis.loaded = 'never'`);
    preloadThread(file);
    preloadThread(file);
    for (let i = 0; i < 2; i++) {
      const messages: Message[] = [];
      const receive = (message: Message) => messages.push(message);
      const thread = await startBlockingThread<Message>({ file, input: i, upWith: 'up', receive });
      expect(messages).toEqual([{ type: 'up', text: `undefined${i}` }]);
      await thread.close();
    }
    expect(openFds()).toBe(before);
  });

  it('resolves when the thread is up, passes its messages on, and stops it', async () => {
    const before = openFds();
    const { thread, messages } = await start(
      `tell({ type: 'before' }); tell({ type: 'up', text: input }); untilStopped(); tell({ type: 'last' });`,
    );
    expect(messages).toEqual([{ type: 'before' }, { type: 'up', text: 'the input' }]);
    await thread.close();
    expect(await thread.closed).toBeNull();
    expect(messages.at(-1)).toEqual({ type: 'last' });
    await thread[Symbol.asyncDispose]();
    expect(openFds()).toBe(before);
  });

  it('rejects with the error that the thread throws before it is up', async () => {
    const before = openFds();
    await expect(start(`throw new RangeError('no room');`)).rejects.toThrow(/^no room$/);
    await expect(start(`throw new RangeError('no room');`)).rejects.toBeInstanceOf(RangeError);
    const missing = start(`
      const epoll = new Epoll();
      try { epoll.add(1000000, EPOLLIN, () => {}); } finally { epoll.close(); }`);
    await expect(missing).rejects.toMatchObject({ code: 'EBADF', errno: 9, syscall: 'epoll_ctl' });
    await expect(missing).rejects.toBeInstanceOf(SystemCallError);
    await expect(start(`tell({ type: 'other' });`)).rejects.toThrow(/^the thread ended without a word$/);
    expect(openFds()).toBe(before);
  });

  it('reports an error that the thread throws later', async () => {
    const { thread } = await start(`tell({ type: 'up' }); untilStopped(); throw new Error('gone');`);
    await thread.close();
    expect(await thread.closed).toMatchObject({ message: 'gone', stack: expect.stringContaining('data:') });
  });

  it('stops if its signal is aborted, before or while it starts', async () => {
    const before = openFds();
    await expect(start(`tell({ type: 'up' });`, AbortSignal.abort(new Error('early')))).rejects.toThrow(
      /^early$/,
    );
    const controller = new AbortController();
    const starting = start(`untilStopped();`, controller.signal);
    controller.abort(new Error('late'));
    await expect(starting).rejects.toThrow(/^late$/);
    expect(openFds()).toBe(before);
  });
});

describe('process.exit()', () => {
  /**
   * The exit code of a process that starts a thread with `input.fds`, two eventfds that block, and exits once it is up:
   * 7 if the thread got to the end of `body`.
   */
  async function exitCode(body: string): Promise<unknown> {
    const program = `
      import { writeSync } from 'node:fs';
      import { setNonBlocking } from ${root};
      import { createEventFd } from ${wait};
      import { startBlockingThread } from ${thread};
      // Counters at their limit, and no O_NONBLOCK: what a hostile peer can do.
      const fds = [createEventFd(), createEventFd()];
      for (const fd of fds) {
        writeSync(fd, new Uint8Array(new BigUint64Array([0xfffffffffffffffen]).buffer));
        setNonBlocking(fd, false);
      }
      const end = new Int32Array(new SharedArrayBuffer(4));
      const file = new URL(${JSON.stringify(threadFile(`${body} Atomics.store(input.end, 0, 1);`).href)});
      await startBlockingThread({ file, input: { fds, end }, upWith: 'up', receive() {} });
      process.on('exit', () => { process.exitCode = end[0] === 1 ? 7 : 8; });
      process.exit(0);`;
    const run = promisify(execFile)(process.execPath, ['--input-type=module', '--eval', program], {
      timeout: 20_000,
      killSignal: 'SIGKILL',
    });
    return await run.then(
      () => 0,
      ({ code, signal, stderr }) => stderr || (code ?? signal),
    );
  }

  it('waits for a blocked thread to end', async () => {
    expect(await exitCode(`tell({ type: 'up' }); untilStopped();`)).toBe(7);
  });

  it('waits for a thread that signals blocking eventfds last', async () => {
    const signals = 'for (const fd of input.fds) signalEventFd(fd);';
    expect(await exitCode(`tell({ type: 'up' }); untilStopped(); ${signals}`)).toBe(7);
  });
});
