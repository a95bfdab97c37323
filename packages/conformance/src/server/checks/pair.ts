import type { ServerClient } from '../client.ts';
import type { ServerContext } from '../subject.ts';

/** Connects a second client. Both have received all messages then, and know each other. */
export async function joinPair({ first, join }: ServerContext): Promise<{
  readonly first: ServerClient;
  readonly second: ServerClient;
}> {
  await first.join([]);
  const second = await join([0]);
  await first.expectEvents(1);
  return { first, second };
}
