import { escapeJson } from '@ivshmem/linux/process';

/** A value as a line of JSON without characters that a terminal would act on. */
export function jsonLine(value: object): string {
  return `${escapeJson(JSON.stringify(value))}\n`;
}
