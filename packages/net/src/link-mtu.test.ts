import { type AnnouncedMtu, ringLayout } from '@ivshmem/transport/protocol';
import { describe, expect, it } from 'vitest';
import { LinkMtu } from './link-mtu.ts';

const LARGE = ringLayout(0x100000);
const SMALL = ringLayout(0x1000);
const br0 = (mtu: number) => ({ name: 'br0', mtu });
const set = (bytes: number): AnnouncedMtu => ({ bytes, set: true });
const unset = (bytes: number): AnnouncedMtu => ({ bytes, set: false });

/** A link on large sections whose peer is not known yet. */
function begun(option?: number, bridge?: number) {
  const mtu = new LinkMtu(option);
  const plan = mtu.plan(LARGE, bridge === undefined ? null : br0(bridge));
  expect(plan.warning).toBeNull();
  mtu.begin(plan);
  return { mtu, plan };
}

describe('LinkMtu', () => {
  it('announces the default of the sections, or the MTU that was set', () => {
    expect(begun().plan.own).toEqual(unset(16384));
    expect(begun(9000).plan.own).toEqual(set(9000));
    expect(begun(undefined, 1500).plan.own).toEqual(set(1500));
    expect(begun(undefined, 9000).plan.own).toEqual(set(9000));
    expect(begun(1400, 1400).plan.own).toEqual(set(1400));
    const mtu = new LinkMtu(undefined);
    expect(mtu.plan(SMALL, null).own).toEqual(unset(144));
    expect(mtu.plan(ringLayout(0x810), null).own).toEqual(unset(68));
  });

  it.each<[string, number | undefined, number | undefined, AnnouncedMtu | null, string]>([
    ['ours', undefined, undefined, unset(16384), "16384: the smaller of ours (16384) and the peer's (16384)"],
    [
      'a smaller peer',
      undefined,
      undefined,
      unset(9000),
      "9000: the smaller of ours (16384) and the peer's (9000)",
    ],
    ['a peer with --mtu', undefined, undefined, set(65521), '65521: set at the peer'],
    [
      'a peer with too much',
      undefined,
      undefined,
      set(65535),
      "65521: as near as possible to the peer's (65535)",
    ],
    ['a peer with too little', undefined, undefined, set(68), "1280: as near as possible to the peer's (68)"],
    ['a hostile default', undefined, undefined, unset(68), "1280: as near as possible to the peer's (68)"],
    ['a foreign peer', undefined, undefined, null, '1500: the peer announces none; --mtu sets another'],
    ['--mtu', 9000, undefined, unset(16384), '9000: set by --mtu'],
    ['--mtu at both ends', 9000, undefined, set(9000), '9000: set by --mtu'],
    ['--mtu towards a foreign peer', 9000, undefined, null, '9000: set by --mtu'],
    [
      'different --mtu',
      9000,
      undefined,
      set(1500),
      "9000: set by --mtu, while the peer's is set to 1500: longer frames than the smaller MTU may be lost",
    ],
    ['a bridge', undefined, 1500, unset(16384), '1500: that of bridge br0'],
    ['a bridge, a foreign peer', undefined, 9000, null, '9000: that of bridge br0'],
    ['--mtu in a bridge', 9000, 9000, null, '9000: set by --mtu'],
  ])('says what was chosen and why: %s', (_name, option, bridge, peer, line) => {
    const { mtu, plan } = begun(option, bridge);
    expect(mtu.agree(plan, peer)).toBe(`MTU ${line}`);
    expect(mtu.current).toBe(Number.parseInt(line, 10));
    expect(mtu.ofInterface).toBe(mtu.current);
  });

  it('names the limit and the remedy if sections are too small for an option or a bridge, and changes nothing', () => {
    const { mtu } = begun(577);
    expect(() => mtu.plan(SMALL, null)).toThrow(
      /^MTU 577: output sections of 4096 bytes allow 576 at most; choose a smaller MTU, or [^\n]*-o\)$/,
    );
    expect(mtu.current).toBe(577);
    expect(() => new LinkMtu(undefined).plan(SMALL, br0(1500))).toThrow(
      /^MTU 1500 of bridge br0: output sections of 4096 bytes allow 576 at most; [^\n]*--mtu[^\n]*-o\)$/,
    );
    expect(new LinkMtu(576).plan(SMALL, null).warning).toBeNull();
  });

  it('warns that --mtu may lower the MTU of a bridge', () => {
    expect(new LinkMtu(576).plan(SMALL, br0(1500))).toMatchObject({
      own: set(576),
      warning: 'MTU 576 (set by --mtu) is less than the 1500 of bridge br0, which may be lowered to it',
    });
  });

  it('treats an MTU that an administrator sets on the interface like --mtu, and keeps it', () => {
    for (const { mtu } of [begun(), begun(1500), begun(undefined, 1500)]) {
      mtu.setOnInterface(9000);
      const plan = mtu.plan(LARGE, null);
      expect(plan).toMatchObject({ own: set(9000), warning: null });
      expect(mtu.agree(plan, unset(16384))).toBe('MTU 9000: set on the interface');
    }
  });

  it('limits an MTU that was set on the interface to what the sections allow, with a warning', () => {
    const { mtu } = begun();
    mtu.setOnInterface(65521);
    const small = mtu.plan(SMALL, null);
    expect(small).toMatchObject({
      own: set(576),
      warning:
        'MTU 65521 (set on the interface): output sections of 4096 bytes allow 576; longer frames are dropped',
    });
    mtu.begin(small);
    mtu.agree(small, null);
    expect([mtu.current, mtu.ofInterface]).toEqual([576, 65521]);
    const large = mtu.plan(LARGE, null);
    expect(large).toMatchObject({ own: set(65521), warning: null });
    mtu.begin(large);
    expect([mtu.current, mtu.ofInterface]).toEqual([65521, 65521]);
  });

  it('adopts the MTU of an interface that it may not change, unless an option demands another', () => {
    const { mtu } = begun();
    mtu.keepOfInterface(1500);
    expect(mtu.plan(LARGE, null).own).toEqual(set(1500));
    expect(() => begun(9000).mtu.keepOfInterface(1500)).toThrow(
      /^MTU 9000: the interface has 1500, [^\n]*CAP_NET_ADMIN$/,
    );
  });

  it('keeps the MTU of the previous session until the peer is known, as far as the sections allow', () => {
    const { mtu, plan } = begun();
    mtu.agree(plan, null);
    mtu.begin(mtu.plan(LARGE, null));
    expect(mtu.current).toBe(1500);
    mtu.begin(mtu.plan(SMALL, null));
    expect(mtu.current).toBe(576);
  });
});
