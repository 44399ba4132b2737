/**
 * Schedules as Dapr writes them: five cron fields with an optional field for seconds before them, `@daily` and its
 * like, `@every 1h30m`, and a `TZ=` or `CRON_TZ=` prefix. Only times are worked out here; waiting is the caller's.
 */
import { Cron } from "croner";
import { parseGoDuration } from "./duration.ts";

export type Schedule = {
  /** The next time after `afterMs` (both Unix ms); undefined when there is none any more. */
  next(afterMs: number): number | undefined;
};

/** `@every` below this is raised to it, as Go's cron does, ms. */
const shortestEveryMs = 1_000;

/**
 * @param zone IANA name for schedules without a prefix of their own; the zone of this host when undefined.
 * @throws Error that names the text and the forms that are understood.
 */
export function parseSchedule(text: string, zone?: string): Schedule {
  const prefixed = /^(?:CRON_)?TZ=(\S+)\s+(.*)$/s.exec(text.trim());
  const pattern = (prefixed?.[2] ?? text).trim();
  const every = /^@every\s+(\S+)$/i.exec(pattern);
  if (every !== null) return everySchedule(text, every[1]!);
  const timezone = prefixed?.[1] ?? zone;
  try {
    if (/^(?:\S+\s+){6}/.test(pattern)) throw new Error("seven fields");
    const options = { paused: true, sloppyRanges: true, ...(timezone === undefined ? {} : { timezone }) };
    const cron = new Cron(pattern, options);
    // Croner tells an unknown zone only when it works out a time.
    cron.nextRun();
    return { next: (afterMs) => cron.nextRun(new Date(afterMs))?.getTime() };
  } catch (cause) {
    throw invalid(text, cause);
  }
}

function everySchedule(text: string, duration: string): Schedule {
  let periodMs: number;
  try {
    periodMs = Math.max(shortestEveryMs, Math.floor(parseGoDuration(duration) / 1000) * 1000);
  } catch (cause) {
    throw invalid(text, cause);
  }
  return { next: (afterMs) => afterMs + periodMs };
}

function invalid(text: string, cause: unknown): Error {
  const why = cause instanceof Error ? cause.message : String(cause);
  const forms = 'write five cron fields ("*/5 * * * *"), six with seconds first, @daily, or "@every 30s"';
  return new Error(`schedule ${JSON.stringify(text)} is not understood: ${why}; ${forms}`, { cause });
}
