/**
 * Counts the calls that run on a component, so that one that was replaced is closed when its last call has ended and
 * not before.
 */

/** Gives the port back with its calls counted, and a promise of the moment when none runs. */
export type CountedPort<P> = {
  readonly port: P;
  /** Resolves when no call runs; calls that begin later are not waited for. */
  idle(): Promise<void>;
  /** From now on calls go to the port that took its place: those who still hold this one may try again later. */
  redirect(next: P): void;
};

type Method = (...args: unknown[]) => unknown;

/** `close` is not counted. What the port does not have stays absent, since blocks ask for it. */
export function countCalls<P>(port: P): CountedPort<P> {
  let target = port as Record<string, unknown>;
  const counted: Record<string, unknown> = {};
  let running = 0;
  let waiting: (() => void)[] = [];
  const ended = (): void => {
    running -= 1;
    if (running > 0) return;
    for (const resolve of waiting) resolve();
    waiting = [];
  };
  const wrap = (name: string): Method =>
    function (...args: unknown[]): unknown {
      const method = target[name];
      if (typeof method !== "function") throw new Error(`the component was replaced by one without ${name}`);
      const result: unknown = (method as Method).apply(target, args);
      if (!isPromise(result)) return result;
      running += 1;
      result.then(ended, ended);
      return result;
    };
  const own = target;
  for (const name of memberNames(own)) {
    const member = own[name];
    if (typeof member === "function" && name !== "close") {
      counted[name] = wrap(name);
    } else if (typeof member === "function") {
      counted[name] = (...args: unknown[]) => (member as Method).apply(own, args);
    } else {
      Object.defineProperty(counted, name, { enumerable: true, get: () => target[name] });
    }
  }
  return {
    port: counted as P,
    idle: () => (running === 0 ? Promise.resolve() : new Promise((resolve) => waiting.push(resolve))),
    redirect: (next) => {
      target = next as Record<string, unknown>;
    },
  };
}

/** Own and inherited members, without those of every object. */
function memberNames(target: object): Set<string> {
  const names = new Set<string>();
  for (let level: object | null = target; level !== null && level !== Object.prototype;) {
    for (const name of Object.getOwnPropertyNames(level)) if (name !== "constructor") names.add(name);
    level = Object.getPrototypeOf(level) as object | null;
  }
  return names;
}

function isPromise(value: unknown): value is Promise<unknown> {
  return (
    typeof value === "object" && value !== null && typeof (value as { then?: unknown }).then === "function"
  );
}
