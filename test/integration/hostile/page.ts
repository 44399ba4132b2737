/**
 * The page docs/hostile-events.md: each test writes one section of it from what a real sidecar answers and holds it
 * against the page. With WEFT_WRITE_PAGE=1 it is written into the page instead, to be read before it is committed.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { grpcCodeName } from "../../../src/api/errors.ts";
import { checkout, GrpcError, type HttpReply } from "../../kit/index.ts";

const path = join(checkout, "docs/hostile-events.md");

/** Holds the table under this heading of the page against rows of cells. */
export function expectTable(
  heading: string,
  columns: readonly string[],
  rows: readonly (readonly string[])[],
): void {
  const line = (cells: readonly string[]): string => `| ${cells.map(cell).join(" | ")} |`;
  const table = [line(columns), `|${columns.map(() => "---|").join("")}`, ...rows.map(line)].join("\n");
  const page = readFileSync(path, "utf8");
  const start = page.indexOf(`## ${heading}\n`);
  if (start < 0) throw new Error(`docs/hostile-events.md has no heading "${heading}"`);
  const from = page.indexOf("\n| ", start) + 1;
  const end = page.indexOf("\n\n", from);
  const to = end < 0 ? page.length - 1 : end;
  if (process.env["WEFT_WRITE_PAGE"] !== undefined) {
    writeFileSync(path, page.slice(0, from) + table + page.slice(to));
    return;
  }
  expect(page.slice(from, to)).toBe(table);
}

function cell(text: string): string {
  return text.replaceAll("|", "\\|").replace(/\s+/g, " ");
}

/** Status, code and text of an answer. Nothing of this may end the connection or be an answer without a code. */
export function httpAnswer({ status, text }: HttpReply): string {
  if (status === 204 || text === "") return String(status);
  let body: { errorCode?: string; message?: string; failedEntries?: unknown[] };
  try {
    body = JSON.parse(text) as typeof body;
  } catch {
    return `${status} text: ${plain(text)}`;
  }
  if (body.errorCode === undefined) return `${status}: ${plain(text)}`;
  if (body.failedEntries !== undefined)
    return `${status} ${body.errorCode}, entries: ${plain(JSON.stringify(body.failedEntries))}`;
  expect(body.errorCode).not.toBe("ERROR");
  return `${status} ${body.errorCode}: ${plain(body.message ?? "")}`;
}

/** `OK`, or the code and text of a status. */
export async function grpcAnswer(call: Promise<unknown>): Promise<string> {
  try {
    await call;
    return "OK";
  } catch (error) {
    if (!(error instanceof GrpcError)) throw error;
    return `${grpcCodeName(error.code)}: ${plain(error.details)}`;
  }
}

/** Text without what differs from run to run, short, and with control characters to be seen. */
export function plain(text: string): string {
  const seen = text
    .replace(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, "<uuid>")
    .replace(/127\.0\.0\.1:\d+/g, "127.0.0.1:<port>")
    .replace(/\/tmp\/weft-test-[^\s"'\\]*/g, "<folder>")
    .replace(/(.)\1{19,}/gs, (run: string, char: string) => `${char}{${run.length}}`)
    // oxlint-disable-next-line no-control-regex -- these are what is to be seen
    .replace(/[\u0000-\u001f\u007f-\u009f\ufffd]/g, (char) =>
      JSON.stringify(char).slice(1, -1).replace("\ufffd", "U+FFFD"),
    );
  return seen.length > 240 ? `${seen.slice(0, 240)}…` : seen;
}
