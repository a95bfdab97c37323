import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type ListenAddress, listenAddressText } from './listen-address.ts';

export interface MetricsPages {
  /** The text of /metrics. */
  readonly metrics: { readonly contentType: string; text(): Promise<string> };
  /** Why the process is not well, one line each; empty where it is. */
  readonly problems: () => readonly string[];
}

/** A listener for HTTP. */
export interface MetricsListener {
  /** Where it listens, the port never 0. */
  readonly address: ListenAddress;
  close(): Promise<void>;
}

const MAX_CONNECTIONS = 32;
/** How long a client may take to ask, in ms. */
const PATIENCE = 5000;

/**
 * Serves `/metrics` and `/healthz` (200 where all is well, 503 with the reasons elsewhere) over HTTP. One request for
 * each connection, a few connections at a time: whoever holds one open is in nobody's way but that of others who ask.
 * Rejects with an Error of one line where it cannot listen.
 */
export async function listenMetrics(
  { address, port }: ListenAddress,
  pages: MetricsPages,
): Promise<MetricsListener> {
  const server = createServer({
    requestTimeout: PATIENCE,
    headersTimeout: PATIENCE,
    connectionsCheckingInterval: PATIENCE / 5,
    maxHeaderSize: 8192,
  });
  server.maxConnections = MAX_CONNECTIONS;
  server.timeout = PATIENCE;
  server.on('request', (request, response) => {
    answer(request, response, pages).catch((error) => {
      if (!response.headersSent) response.writeHead(500);
      response.end(`${error instanceof Error ? error.message : error}\n`);
    });
  });
  server.listen(port, address);
  try {
    await once(server, 'listening');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const where = listenAddressText({ address, port });
    const problem = code === 'EADDRINUSE' ? 'EADDRINUSE: another program listens there' : (code ?? error);
    throw new Error(`${where}: ${problem}: choose another address or port`);
  }
  // Later ones concern single connections.
  server.on('error', () => {});
  return {
    address: { address, port: (server.address() as AddressInfo).port },
    async close() {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  pages: MetricsPages,
): Promise<void> {
  response.setHeader('Connection', 'close');
  response.setHeader('Content-Type', 'text/plain; charset=utf-8');
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.writeHead(405, { Allow: 'GET, HEAD' }).end('only GET and HEAD\n');
    return;
  }
  switch (request.url?.split('?')[0]) {
    case '/metrics': {
      const text = await pages.metrics.text();
      response.setHeader('Content-Type', pages.metrics.contentType);
      response.end(text);
      return;
    }
    case '/healthz': {
      const problems = pages.problems();
      response.writeHead(problems.length === 0 ? 200 : 503);
      response.end(problems.length === 0 ? 'ok\n' : `${problems.join('\n')}\n`);
      return;
    }
    default:
      response.writeHead(404).end('/metrics or /healthz\n');
  }
}
