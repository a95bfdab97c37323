export { dataRanges, punchHole, reserveRange } from './file-range.ts';
export {
  createMemfd,
  F_SEAL_GROW,
  F_SEAL_SEAL,
  F_SEAL_SHRINK,
  fileLength,
  isRegularFile,
  reserveHugePages,
  sealsOf,
} from './memfd.ts';
export { type Mapping, mapPrivate, mapShared, PAGE_SIZE, setFileLength } from './memory.ts';
export {
  createSharedMemoryObject,
  openSharedMemoryObject,
  unlinkSharedMemoryObject,
} from './shared-memory-object.ts';
export { StateMemory } from './state-memory.ts';
