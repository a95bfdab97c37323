import type { Link, LinkStatus, Offload } from '@ivshmem/net';
import { stateName } from '@ivshmem/transport/protocol';

/** What happens to a link, as `--json` prints it. `time` is in ms since 1970. */
export type LinkEvent = { readonly time: number } & (
  | ({ readonly event: 'up' } & Link['info'])
  | ({ readonly event: 'state' } & ReturnType<typeof stateNames>)
  | { readonly event: 'log'; readonly text: string }
  | ({ readonly event: 'stats' } & ReturnType<Link['stats']>)
);

/** Reports everything that happens to a link from now on. */
export function followLink(link: Link, report: (event: LinkEvent) => void): void {
  link.info$.subscribe((info) => report({ event: 'up', time: Date.now(), ...info }));
  link.state$.subscribe((status) => report({ event: 'state', time: Date.now(), ...stateNames(status) }));
  link.log$.subscribe((text) => report(linkLog(text)));
}

export function linkLog(text: string): LinkEvent {
  return { event: 'log', time: Date.now(), text };
}

export function linkStats(link: Link): LinkEvent {
  return { event: 'stats', time: Date.now(), ...link.stats() };
}

/** The status of a link, with the states of the handshake by name. */
function stateNames({ local, peer, carrier, offloads }: LinkStatus) {
  return { local: stateName(local), peer: stateName(peer), carrier, offloads };
}

/** Turns the events of a link into lines of text. Each begins with the interface: `label` until its name is known. */
export function linkLines(label: string): (event: LinkEvent) => string[] {
  let tap = label;
  return (event) => {
    if (event.event === 'up') tap = event.tap;
    return [`${tap}: ${textOf(event)}`];
  };
}

function textOf(event: LinkEvent): string {
  switch (event.event) {
    case 'up':
      return `peer ${event.id}, MTU ${event.mtu}, sections of ${event.outputSectionSize} bytes, rings of ${event.queueLength}`;
    case 'state':
      return `${event.local}, peer ${event.peer}: ${event.carrier ? `link is up, ${offloadText(event.offloads)}` : 'link is down'}`;
    case 'log':
      return event.text;
    case 'stats': {
      const { event: _event, time: _time, ...counters } = event;
      return Object.entries(counters)
        .filter(([name, value]) => value > 0 || /^[tr]x/.test(name))
        .map(([name, value]) => `${name} ${value}`)
        .join(', ');
    }
  }
}

/** Offloads as text. */
export function offloadText(offloads: readonly Offload[]): string {
  return offloads.length === 0 ? 'no offload' : `offload of ${offloads.join(', ')}`;
}
