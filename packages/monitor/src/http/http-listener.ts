import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type ListenAddress, listenAddressText } from './listen-address.ts';
import type { MetricsText } from './metrics.ts';

/** What a listener serves. */
export interface HttpPages {
  /** The body of /metrics. */
  readonly metrics: MetricsText;
  /** The problems that make /healthz fail, one line each; empty if there are none. */
  readonly problems: () => readonly string[];
}

/** A listening HTTP server. */
export interface HttpListener {
  /** Its address; the port is never 0. */
  readonly address: ListenAddress;
  close(): Promise<void>;
}

const MAX_CONNECTIONS = 32;
/** Time limit for a client to send its request, in ms. */
const TIMEOUT = 5000;

/**
 * Serves `/metrics` and `/healthz` (200, or 503 with the problems) over HTTP: one request per connection, a limited number
 * of connections, so that idle clients cost little. Rejects with an Error of one line if it cannot listen.
 */
export async function listenHttp({ address, port }: ListenAddress, pages: HttpPages): Promise<HttpListener> {
  const server = createServer({
    requestTimeout: TIMEOUT,
    headersTimeout: TIMEOUT,
    connectionsCheckingInterval: TIMEOUT / 5,
    maxHeaderSize: 8192,
  });
  server.maxConnections = MAX_CONNECTIONS;
  server.timeout = TIMEOUT;
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
    const problem = code === 'EADDRINUSE' ? 'EADDRINUSE: in use by another program' : (code ?? error);
    throw new Error(`${where}: ${problem}: choose another address or port`);
  }
  // Errors from now on concern single connections.
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

async function answer(request: IncomingMessage, response: ServerResponse, pages: HttpPages): Promise<void> {
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
