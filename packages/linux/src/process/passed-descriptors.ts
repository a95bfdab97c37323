/** The first descriptor that a service manager passes. Source: sd_listen_fds(3). */
const LISTEN_FDS_START = 3;

/** The environment of a process, as `process.env`. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** A descriptor that a service manager has passed to this process. */
export interface PassedDescriptor {
  readonly fd: number;
  /** From LISTEN_FDNAMES; `unknown` without. */
  readonly name: string;
}

/** Those of a process that was started before they were known, see `standBy`. */
let handedOver: readonly PassedDescriptor[] | undefined;

/** From now on, {@link passedDescriptors} returns these. */
export function setPassedDescriptors(descriptors: readonly PassedDescriptor[]): void {
  handedOver = descriptors;
}

/**
 * The descriptors in LISTEN_FDS, both sockets of socket units and those of the descriptor store; none if LISTEN_PID names
 * another process. Source: sd_listen_fds_with_names(3).
 */
export function passedDescriptors(environment: Environment, pid: number): readonly PassedDescriptor[] {
  if (handedOver !== undefined) return handedOver;
  const { LISTEN_FDS = '0', LISTEN_PID, LISTEN_FDNAMES = '' } = environment;
  const count = Number(LISTEN_FDS);
  if (!Number.isInteger(count) || count < 0 || Number(LISTEN_PID) !== pid) return [];
  const names = LISTEN_FDNAMES.split(':');
  return Array.from({ length: count }, (_, i) => ({
    fd: LISTEN_FDS_START + i,
    name: names[i] || 'unknown',
  }));
}
