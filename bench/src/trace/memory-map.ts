import { type MemoryLayout, type RingLayout, ringLayout } from '@ivshmem/transport/protocol';

// What the bytes of a link's shared memory are: protocol page, sections 3, 4 and 15.

/** A field of the shared memory; of the data area, the bytes that have changed. */
export interface Field {
  /** Such as `section 0, avail.idx`. */
  readonly name: string;
  readonly offset: number;
  readonly length: number;
}

/** All fields outside the data areas, in the order of their offsets. */
function fieldsOf(memory: MemoryLayout): readonly Field[] {
  const fields: Field[] = [];
  for (let peer = 0; peer < 2; peer++) {
    fields.push({ name: `state table, entry ${peer}`, offset: 4 * peer, length: 4 });
  }
  const layout = ringLayout(memory.outputSectionSize);
  for (let peer = 0; peer < 2; peer++) {
    for (const { name, offset, length } of sectionFields(layout)) {
      fields.push({ name: `section ${peer}, ${name}`, offset: sectionOffset(memory, peer) + offset, length });
    }
  }
  return fields;
}

function sectionOffset(memory: MemoryLayout, peer: number): number {
  return memory.outputOffset + peer * memory.outputSectionSize;
}

function sectionFields({ length: n, avail, used }: RingLayout): Field[] {
  const each = (name: string, offset: number, length: number): Field[] =>
    Array.from({ length: n }, (_, i) => ({ name: `${name}[${i}]`, offset: offset + i * length, length }));
  return [
    ...each('descriptor', 0, 16),
    { name: 'avail.flags', offset: avail, length: 2 },
    { name: 'avail.idx', offset: avail + 2, length: 2 },
    ...each('avail.ring', avail + 4, 2),
    { name: 'used_event', offset: avail + 4 + 2 * n, length: 2 },
    { name: 'MTU', offset: avail + 6 + 2 * n, length: 2 },
    { name: 'used.flags', offset: used, length: 2 },
    { name: 'used.idx', offset: used + 2, length: 2 },
    ...each('used.ring', used + 4, 8),
    { name: 'avail_event', offset: used + 4 + 8 * n, length: 2 },
  ];
}

/**
 * The fields that differ between two copies of the memory. Entries of a ring that follow each other are one, such as
 * `avail.ring[1…31]`.
 */
export function changedFields(memory: MemoryLayout, before: Uint8Array, after: Uint8Array): Field[] {
  const changed = (offset: number, length: number) => {
    for (let i = offset; i < offset + length; i++) if (before[i] !== after[i]) return true;
    return false;
  };
  const fields = fieldsOf(memory).filter(({ offset, length }) => changed(offset, length));
  const layout = ringLayout(memory.outputSectionSize);
  for (let peer = 0; peer < 2; peer++) {
    const section = sectionOffset(memory, peer);
    const end = section + layout.outputSectionSize;
    let first = -1;
    let last = -1;
    for (let i = section + layout.data; i < end; i++) {
      if (before[i] === after[i]) continue;
      if (first === -1) first = i;
      last = i;
    }
    if (first !== -1) fields.push({ name: `section ${peer}, data`, offset: first, length: last + 1 - first });
  }
  return merged(fields);
}

function merged(fields: readonly Field[]): Field[] {
  const result: Field[] = [];
  for (const field of fields) {
    const last = result.at(-1);
    const [, name, index] = /^(.*)\[(\d+)\]$/.exec(field.name) ?? [];
    const [, lastName, from] = /^(.*)\[(\d+)(?:…\d+)?\]$/.exec(last?.name ?? '') ?? [];
    if (
      last !== undefined &&
      name !== undefined &&
      name === lastName &&
      last.offset + last.length === field.offset
    ) {
      const length = last.length + field.length;
      result[result.length - 1] = { name: `${name}[${from}…${index}]`, offset: last.offset, length };
    } else {
      result.push(field);
    }
  }
  return result;
}
