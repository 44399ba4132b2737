/**
 * What is written down about the shared server (`server.json`), and how to tell that server from all others.
 */
import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { codeOf } from "./errors.ts";
import type { Home } from "./home.ts";
import { processesWith } from "./process.ts";
import { readConfigPort } from "./config.ts";

/** A running shared server as recorded by the process that started or adopted it. */
export type SharedServer = {
  /** 0 when the process cannot be seen from here, such as from inside a container. */
  readonly pid: number;
  readonly port: number;
  readonly url: string;
  readonly version: string;
  /** ISO 8601. */
  readonly startedAt: string;
  readonly binary: string;
  readonly dataDir: string;
  readonly serverName: string;
  /** New at each start of the server; tells a restarted one from the one before. */
  readonly serverId: string;
};

/** The record; undefined when there is none or it makes no sense. */
export function readState(home: Home): SharedServer | undefined {
  const text = readText(home.stateFile);
  if (text === undefined) return undefined;
  try {
    const value: unknown = JSON.parse(text);
    return isSharedServer(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Replaces the record in one step: readers see the old one or the new one, never a part. */
export function writeState(home: Home, server: SharedServer): void {
  writeWhole(home.stateFile, `${JSON.stringify(server, null, 2)}\n`);
}

/** Writes a file under a temporary name and renames it. The caller holds the home's lock. */
export function writeWhole(path: string, text: string): void {
  const temporary = `${path}.new`;
  writeFileSync(temporary, text, { mode: 0o600 });
  renameSync(temporary, path);
}

/** Forgets a server that has ended. Its data and configuration stay. */
export function clearState(home: Home): void {
  rmSync(home.stateFile, { force: true });
}

/** Port in the configuration that the last started server read; undefined before the first start. */
export function configuredPort(home: Home): number | undefined {
  const text = readText(home.configFile);
  return text === undefined ? undefined : readConfigPort(text);
}

/**
 * Ids of this home's server processes, also of one that does not answer, has no record, or has only just been
 * started: those whose command line names this home's configuration file. At most one, unless something went
 * wrong. A noted id would not do: ids are reused, and a starter can be killed before it notes one.
 */
export function ownProcesses(home: Home): number[] {
  return processesWith(serverArgs(home));
}

/** The arguments by which a server of this home is started and recognized. */
export function serverArgs(home: Home): string[] {
  return ["-c", home.configFile];
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes(codeOf(error) ?? "")) return undefined;
    throw error;
  }
}

function isSharedServer(value: unknown): value is SharedServer {
  if (typeof value !== "object" || value === null) return false;
  const fields = new Map<string, unknown>(Object.entries(value));
  const texts = ["url", "version", "startedAt", "binary", "dataDir", "serverName", "serverId"];
  return (
    ["pid", "port"].every((name) => Number.isInteger(fields.get(name))) &&
    texts.every((name) => typeof fields.get(name) === "string")
  );
}
