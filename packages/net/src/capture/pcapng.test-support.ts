/** A pcapng file, as far as captures write it. */
export interface PcapngFile {
  readonly application: string | undefined;
  readonly interfaces: { name: string; description: string; snapLength: number; resolution: number }[];
  readonly packets: {
    interfaceId: number;
    time: bigint;
    bytes: Buffer;
    length: number;
    flags: number;
    dropped: number;
    comments: string[];
  }[];
  readonly statistics: {
    interfaceId: number;
    received: number;
    dropped: number;
    comment: string | undefined;
  }[];
}

/** Reads a file strictly: throws if it is not as the format demands. */
export function parsePcapng(file: Buffer): PcapngFile {
  const result: { -readonly [name in keyof PcapngFile]: PcapngFile[name] } = {
    application: undefined,
    interfaces: [],
    packets: [],
    statistics: [],
  };
  for (let at = 0; at < file.length; ) {
    const length = file.readUInt32LE(at + 4);
    if (length % 4 !== 0 || file.readUInt32LE(at + length - 4) !== length) throw new Error(`block at ${at}`);
    const body = file.subarray(at + 8, at + length - 4);
    const type = file.readUInt32LE(at);
    if (type === 0x0a0d0d0a) {
      if (body.readUInt32LE(0) !== 0x1a2b3c4d || body.readUInt32LE(4) !== 1)
        throw new Error('section header');
      result.application = optionsOf(body.subarray(16)).get(4)?.[0]?.toString();
    } else if (type === 1) {
      if (body.readUInt16LE(0) !== 1) throw new Error('link type');
      const options = optionsOf(body.subarray(8));
      result.interfaces.push({
        name: String(options.get(2)?.[0]),
        description: String(options.get(3)?.[0]),
        snapLength: body.readUInt32LE(4),
        resolution: options.get(9)![0]![0]!,
      });
    } else if (type === 6) {
      const captured = body.readUInt32LE(12);
      const options = optionsOf(body.subarray(20 + captured + (-captured & 3)));
      result.packets.push({
        interfaceId: body.readUInt32LE(0),
        time: (BigInt(body.readUInt32LE(4)) << 32n) | BigInt(body.readUInt32LE(8)),
        bytes: body.subarray(20, 20 + captured),
        length: body.readUInt32LE(16),
        flags: options.get(2)?.[0]?.readUInt32LE() ?? 0,
        dropped: Number(options.get(4)?.[0]?.readBigUInt64LE() ?? 0),
        comments: (options.get(1) ?? []).map(String),
      });
    } else if (type === 5) {
      const options = optionsOf(body.subarray(12));
      const number = (code: number) => Number(options.get(code)![0]!.readBigUInt64LE());
      const comment = options.get(1)?.[0]?.toString();
      result.statistics.push({
        interfaceId: body.readUInt32LE(0),
        received: number(4),
        dropped: number(5),
        comment,
      });
    } else throw new Error(`unknown block ${type}`);
    at += length;
  }
  return result;
}

function optionsOf(bytes: Buffer): Map<number, Buffer[]> {
  const options = new Map<number, Buffer[]>();
  for (let at = 0; at < bytes.length; ) {
    const code = bytes.readUInt16LE(at);
    const length = bytes.readUInt16LE(at + 2);
    if (code === 0) {
      if (at + 4 !== bytes.length) throw new Error('bytes after the end of options');
      return options;
    }
    options.set(code, [...(options.get(code) ?? []), bytes.subarray(at + 4, at + 4 + length)]);
    at += 4 + length + (-length & 3);
  }
  return options;
}
