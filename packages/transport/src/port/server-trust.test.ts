import { describe, expect, it } from 'vitest';
import { ServerTrust } from './server-trust.ts';

describe('a server that follows another', () => {
  const after = (uid: number, sealed: boolean) => {
    const trust = new ServerTrust();
    trust.checkUser(uid);
    trust.checkMemory(sealed);
    trust.accept({ uid, sealed });
    return trust;
  };

  it('must be of the same user or of root', () => {
    const trust = after(1000, true);
    trust.checkUser(1000);
    trust.checkUser(0);
    expect(() => trust.checkUser(1001)).toThrow(
      /^it is run by user 1001, the one before by user 1000: [^\n]+$/,
    );
    expect(() => after(0, true).checkUser(1000)).toThrow(/user 1000/);
  });

  it('may be of root, and be followed by one of the first user', () => {
    const trust = after(1000, true);
    trust.accept({ uid: 0, sealed: true });
    trust.checkUser(1000);
  });

  it('may have memory that can be truncated only if the first had', () => {
    expect(() => after(0, true).checkMemory(false)).toThrow(/^any client can truncate its memory/);
    const trust = after(0, false);
    trust.accept({ uid: 0, sealed: true });
    trust.checkMemory(false);
  });
});
