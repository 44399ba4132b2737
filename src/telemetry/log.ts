/**
 * Log lines in Dapr's forms. Text: `time="…" level=info msg="…" app_id=… instance=… scope=… type=log ver=…` with the
 * fields after msg sorted; JSON: one object a line with sorted keys; a coloured short form on terminals. One writer per
 * sidecar.
 */
import { closeSync, openSync, writeSync } from "node:fs";
import type { Clock } from "../../mesh/index.ts";
import { goJson } from "../lib/go-json.ts";
import { goQuote } from "../lib/go-quote.ts";

/** As in the flag --log-level. */
export type LogLevel = "debug" | "info" | "warn" | "error" | "fatal";

/** Extra fields of a line; values are written as text (quoted only when needed) or as JSON strings. */
export type LogFields = Readonly<Record<string, string | number>>;

export type Log = {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  fatal(message: string, fields?: LogFields): void;
  /** At info, whatever the level of the log. */
  always(message: string, fields?: LogFields): void;
  /** The same writer under another scope, e.g. `dapr.runtime.http`, with fields added to every line. */
  scope(name: string, fields?: LogFields): Log;
};

export type LogOptions = {
  readonly level: LogLevel;
  readonly json: boolean;
  /** File to append to; undefined = stdout. */
  readonly file: string | undefined;
  readonly appId: string;
  readonly instance: string;
  readonly version: string;
  readonly clock: Clock;
  /** Somebody reads along: the coloured form instead of text. */
  readonly terminal?: boolean;
};

const rank: Readonly<Record<LogLevel, number>> = { debug: 0, info: 1, warn: 2, error: 3, fatal: 4 };

/** Level names as lines carry them. */
const written: Readonly<Record<LogLevel, string>> = {
  debug: "debug",
  info: "info",
  warn: "warning",
  error: "error",
  fatal: "fatal",
};

/** Opens the log. Throws when the log file cannot be opened. `close` releases the file. */
export function openLog(options: LogOptions): { log: Log; close(): void } {
  const descriptor = options.file === undefined ? 1 : openSync(options.file, "a");
  const write = (line: string): void => writeAll(descriptor, line);
  const base = { app_id: options.appId, instance: options.instance, type: "log", ver: options.version };
  return {
    log: scoped(options, write, { ...base, scope: "dapr.runtime" }),
    close: () => {
      if (options.file !== undefined) closeSync(descriptor);
    },
  };
}

function scoped(options: LogOptions, write: (line: string) => void, fixed: LogFields): Log {
  const form = formOf(options);
  const put = (level: LogLevel, message: string, fields?: LogFields): void => {
    const all = fields === undefined ? fixed : { ...fixed, ...fields };
    const time = rfc3339Nanos(options.clock.nowMs());
    write(form(time, level, message, all));
  };
  const emit: typeof put = (level, message, fields) => {
    if (rank[level] >= rank[options.level]) put(level, message, fields);
  };
  return {
    debug: (message, fields) => emit("debug", message, fields),
    info: (message, fields) => emit("info", message, fields),
    warn: (message, fields) => emit("warn", message, fields),
    error: (message, fields) => emit("error", message, fields),
    fatal: (message, fields) => emit("fatal", message, fields),
    always: (message, fields) => put("info", message, fields),
    scope: (name, fields) => scoped(options, write, { ...fixed, ...fields, scope: name }),
  };
}

type Form = (time: string, level: LogLevel, message: string, fields: LogFields) => string;

function formOf({ json, terminal, file, clock }: LogOptions): Form {
  if (json) return jsonLine;
  if (terminal !== true || file !== undefined) return textLine;
  const startMs = clock.monotonicMs();
  return (_time, level, message, fields) =>
    terminalLine((clock.monotonicMs() - startMs) / 1000, level, message, fields);
}

/** ANSI colours. */
const colours: Readonly<Record<LogLevel, number>> = { debug: 37, info: 36, warn: 33, error: 31, fatal: 31 };
const messageColumns = 44;

/** Level, seconds since the start, message, fields. */
function terminalLine(seconds: number, level: LogLevel, message: string, fields: LogFields): string {
  const coloured = (text: string): string => `\u001b[${colours[level]}m${text}\u001b[0m`;
  const name = written[level].slice(0, 4).toUpperCase();
  const at = String(Math.floor(seconds)).padStart(4, "0");
  let line = `${coloured(name)}[${at}] ${message.padEnd(messageColumns)}`;
  for (const key of Object.keys(fields).sort()) line += ` ${coloured(key)}=${textValue(String(fields[key]))}`;
  return `${line}\n`;
}

function textLine(time: string, level: LogLevel, message: string, fields: LogFields): string {
  let line = `time=${quoted(time)} level=${written[level]} msg=${textValue(message)}`;
  for (const key of Object.keys(fields).sort()) line += ` ${key}=${textValue(String(fields[key]))}`;
  return `${line}\n`;
}

function jsonLine(time: string, level: LogLevel, message: string, fields: LogFields): string {
  const line: Record<string, string | number> = { ...fields, level: written[level], msg: message, time };
  return `${goJson(line)}\n`;
}

const plainValue = /^[A-Za-z0-9\-._/@^+]*$/;
/** Nothing that has an escape in quotes. */
const plainQuoted = /^[ !#-[\]-~]*$/;

function textValue(value: string): string {
  return plainValue.test(value) ? value : quoted(value);
}

function quoted(value: string): string {
  return plainQuoted.test(value) ? `"${value}"` : goQuote(value);
}

/** RFC 3339 in UTC with the digits Go writes for nanoseconds (milliseconds are all this clock knows). */
function rfc3339Nanos(unixMs: number): string {
  const iso = new Date(unixMs).toISOString();
  return iso.replace(/\.?0*Z$/, "Z");
}

/** A full pipe (EAGAIN) must neither lose the line nor stop the sidecar for long: bounded tries, then the line goes. */
function writeAll(descriptor: number, line: string): void {
  const bytes = Buffer.from(line);
  let offset = 0;
  for (let tries = 0; offset < bytes.length && tries < 1000; tries++) {
    try {
      offset += writeSync(descriptor, bytes, offset);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") return;
    }
  }
}
