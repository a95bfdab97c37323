import { parentPort, workerData } from 'node:worker_threads';
import { Netns } from '@ivshmem/linux/network';
import { attachControl, type Control } from '../control.ts';
import { ping } from './icmp.ts';
import type { Outcome, Task } from './tasks.ts';
import { tcpClient, tcpServer } from './tcp.ts';
import { udpReceiver, udpSender } from './udp.ts';
import { udpEchoClient, udpEchoServer } from './udp-echo.ts';

function run(task: Task, control: Control): unknown {
  const netns = Netns.open(task.netns);
  try {
    netns.enter();
  } finally {
    netns.close();
  }
  switch (task.kind) {
    case 'ping':
      return ping(task, control);
    case 'udp-echo-client':
      return udpEchoClient(task, control);
    case 'udp-echo-server':
      return udpEchoServer(task, control);
    case 'tcp-client':
      return tcpClient(task, control);
    case 'tcp-server':
      return tcpServer(task, control);
    case 'udp-sender':
      return udpSender(task, control);
    case 'udp-receiver':
      return udpReceiver(task, control);
  }
}

const { task, memory } = workerData as { task: Task; memory: SharedArrayBuffer };
let outcome: Outcome;
try {
  outcome = { result: run(task, attachControl(memory)) };
} catch (error) {
  const { message, code } = error as NodeJS.ErrnoException;
  outcome = { error: { message, code } };
}
parentPort!.postMessage(outcome);
