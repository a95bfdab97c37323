/** The outcome of one check. */
export interface Check {
  readonly name: string;
  /** `failure`: without it, no link works here. `warning`: something that is not always needed is missing. */
  readonly status: 'ok' | 'warning' | 'failure';
  /** What was found, in one line. */
  readonly text: string;
  /** What to do about it; not for `ok`. */
  readonly remedy?: string;
}

export function ok(name: string, text: string): Check {
  return { name, status: 'ok', text };
}

export function warning(name: string, text: string, remedy: string): Check {
  return { name, status: 'warning', text, remedy };
}

export function failure(name: string, text: string, remedy: string): Check {
  return { name, status: 'failure', text, remedy };
}
