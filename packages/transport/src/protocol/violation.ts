/**
 * Violations of the protocol in the rings. A queue that has found one accepts nothing more from the peer; the link is
 * reset. Source: protocol page, sections 2, 3 and 6.
 */
export const Violation = {
  NONE: 0,
  /** `avail.idx` is more than n ahead of what was taken. */
  AVAIL_INDEX: 1,
  /** An entry of the avail ring is ≥ n. */
  DESCRIPTOR_INDEX: 2,
  /** A descriptor is offered again before it was completed. */
  DESCRIPTOR_REPEATED: 3,
  /** A descriptor has flags; protocol 0x0001 defines none. */
  DESCRIPTOR_FLAGS: 4,
  /** A descriptor points outside the peer's data area. */
  DESCRIPTOR_RANGE: 5,
  /** `used.idx` is ahead of what was sent. */
  USED_INDEX: 6,
  /** A completion names another descriptor than the oldest one sent. */
  USED_ID: 7,
  /** A completion has a `len` other than 1. */
  USED_LENGTH: 8,
} as const;

export type Violation = (typeof Violation)[keyof typeof Violation];

const texts: Record<Violation, string> = {
  [Violation.NONE]: 'none',
  [Violation.AVAIL_INDEX]: 'avail.idx runs ahead by more than the queue holds',
  [Violation.DESCRIPTOR_INDEX]: 'the avail ring names a descriptor that does not exist',
  [Violation.DESCRIPTOR_REPEATED]: 'the avail ring names a descriptor twice',
  [Violation.DESCRIPTOR_FLAGS]: 'a descriptor has flags set',
  [Violation.DESCRIPTOR_RANGE]: 'a descriptor points outside the data area',
  [Violation.USED_INDEX]: 'used.idx runs ahead of what was sent',
  [Violation.USED_ID]: 'a completion is out of order',
  [Violation.USED_LENGTH]: 'a completion has a length other than 1',
};

/** One clause for a log line. */
export function violationText(violation: Violation): string {
  return texts[violation];
}
