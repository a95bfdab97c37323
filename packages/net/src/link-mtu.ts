import { OptionError } from '@ivshmem/linux';
import { TAP_MAX_MTU } from '@ivshmem/linux/network';
import { type AnnouncedMtu, agreedMtu, MIN_MTU, type RingLayout } from '@ivshmem/transport/protocol';

/** An MTU that is not negotiated with the peer, in bytes, and what set it, as worded in log lines. */
interface Setting {
  readonly bytes: number;
  readonly by: string;
}

const BY_OPTION = 'set by --mtu';
const ON_INTERFACE = 'set on the interface';

/** The bridge that the interface is, or will be, a port of. */
export interface BridgeMtu {
  readonly name: string;
  /** Bytes. */
  readonly mtu: number;
}

/** What is decided about the MTU before the peer is known. */
export interface MtuPlan {
  readonly own: AnnouncedMtu;
  /** What set it, as worded in log lines; empty if nothing did. */
  readonly setBy: string;
  /** The largest MTU that sections and interface allow, in bytes. */
  readonly largest: number;
  /** A warning for the administrator, one line; null if there is none. */
  readonly warning: string | null;
}

/**
 * The MTU of a link: the one that it announces to its peer, and the one in use. An MTU set by an administrator, with an
 * option or on the running link's interface, takes precedence; then that of the interface's bridge; otherwise it is
 * negotiated with the peer. Source: protocol page, section 15.
 */
export class LinkMtu {
  #administrator: Setting | undefined;
  #current: number | undefined;
  readonly #onSet: () => void;

  /** `option` in bytes, 68 … TAP_MAX_MTU; undefined if there is none. `onSet` is called at {@link setOnInterface}. */
  constructor(option: number | undefined, onSet = () => {}) {
    this.#onSet = onSet;
    if (option !== undefined) this.#administrator = { bytes: option, by: BY_OPTION };
  }

  /** The MTU in use, in bytes. Only after {@link begin}. */
  get current(): number {
    return this.#current!;
  }

  /**
   * The MTU that the interface should have, in bytes: the one that an administrator set there, even if the sections allow
   * less; otherwise the one in use. Only after {@link begin}.
   */
  get ofInterface(): number {
    return this.#administrator?.by === ON_INTERFACE ? this.#administrator.bytes : this.current;
  }

  /** An administrator has set an MTU on the interface, in bytes: later plans use it. */
  setOnInterface(bytes: number): void {
    this.#administrator = { bytes, by: ON_INTERFACE };
    this.#onSet();
  }

  /** The interface was there before this process, with an MTU of `bytes`, and maybe `set` by an administrator. An option wins. */
  resume(bytes: number, set: boolean): void {
    this.#current = bytes;
    if (set && this.#administrator === undefined) this.setOnInterface(bytes);
  }

  /**
   * The interface has an MTU of `bytes`, and this process lacks the permission to change it: treats it as set by an
   * administrator. Throws an Error of one line if an option demands another.
   */
  keepOfInterface(bytes: number): void {
    if (this.#administrator?.by === BY_OPTION) {
      throw new Error(
        `MTU ${this.#administrator.bytes}: the interface has ${bytes}, which this process may not change: set it there before, or start this with CAP_NET_ADMIN`,
      );
    }
    this.setOnInterface(bytes);
  }

  /** Throws {@link OptionError} if output sections of this layout are too small for an option or for the bridge. */
  plan(layout: RingLayout, bridge: BridgeMtu | null): MtuPlan {
    const { outputSectionSize } = layout;
    const largest = Math.min(layout.maxMtu, TAP_MAX_MTU);
    const setting =
      this.#administrator ?? (bridge && { bytes: bridge.mtu, by: `that of bridge ${bridge.name}` });
    if (setting === null) {
      const bytes = Math.min(Math.max(layout.defaultMtu, MIN_MTU), largest);
      return { own: { bytes, set: false }, setBy: '', largest, warning: null };
    }
    const { bytes, by } = setting;
    let warning: string | null = null;
    if (bytes > largest) {
      if (by !== ON_INTERFACE) {
        const [owner, remedy] =
          by === BY_OPTION
            ? ['', 'a smaller MTU']
            : [` of bridge ${bridge!.name}`, 'a smaller MTU, which lowers the bridge, too (--mtu)'];
        throw new OptionError(
          by === BY_OPTION ? 'mtu' : 'bridge',
          `MTU ${bytes}${owner}: output sections of ${outputSectionSize} bytes allow ${largest} at most; choose ${remedy}, or start the server with larger sections (-o)`,
        );
      }
      warning = `MTU ${bytes} (${by}): output sections of ${outputSectionSize} bytes allow ${largest}; longer frames are dropped`;
    } else if (bridge !== null && bytes < bridge.mtu) {
      warning = `MTU ${bytes} (${by}) is less than the ${bridge.mtu} of bridge ${bridge.name}, which may be lowered to it`;
    }
    return { own: { bytes: Math.min(bytes, largest), set: true }, setBy: by, largest, warning };
  }

  /** Sets the MTU in use until the peer is known: the plan's if that is set; otherwise the previous one, if it fits. */
  begin({ own, largest }: MtuPlan): void {
    this.#current = own.set ? own.bytes : Math.min(this.#current ?? own.bytes, largest);
  }

  /** Decides on the MTU to use with a peer that announces `peer`. Returns a log line about it. */
  agree(plan: MtuPlan, peer: AnnouncedMtu | null): string {
    const mtu = agreedMtu(plan.own, peer, plan.largest);
    this.#current = mtu;
    return `MTU ${mtu}: ${plan.own.set ? whySet(plan, peer) : whyAgreed(plan, peer, mtu)}`;
  }
}

function whySet({ own, setBy }: MtuPlan, peer: AnnouncedMtu | null): string {
  if (peer === null || !peer.set || peer.bytes === own.bytes) return setBy;
  return `${setBy}, while the peer's is set to ${peer.bytes}: longer frames than the smaller MTU may be lost`;
}

function whyAgreed({ own }: MtuPlan, peer: AnnouncedMtu | null, mtu: number): string {
  if (peer === null) return 'the peer announces none; --mtu sets another';
  if (peer.set && mtu === peer.bytes) return 'set at the peer';
  if (!peer.set && mtu === Math.min(own.bytes, peer.bytes)) {
    return `the smaller of ours (${own.bytes}) and the peer's (${peer.bytes})`;
  }
  return `as near as possible to the peer's (${peer.bytes})`;
}
