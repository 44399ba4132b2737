// Which errors the API can answer, found by asking the code: every catalogue function of the blocks is called with
// probes, and every `ERR_…` literal of `src` is read. docs/errors.md is compared with both.
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { ApiError, grpcCodeName } from "../../src/api/errors.ts";

/** One row of docs/errors.md without its words. `grpc` is the name of the gRPC code. */
export type ErrorRow = { readonly code: string; readonly httpStatus: string; readonly grpc: string };

type Exports = Readonly<Record<string, unknown>>;

/** More than any catalogue function takes. */
const probeArguments = 6;

/** Every code, status and gRPC code that the catalogues of the blocks make, each once, sorted. */
export async function catalogueRows(root: string): Promise<ErrorRow[]> {
  const rows = new Map<string, ErrorRow>();
  for (const path of globSync("src/blocks/*/errors.ts", { cwd: root })) {
    const catalogue = await importFrom(root, path);
    const port = await importFrom(root, path.replace(/errors\.ts$/, "port.ts")).catch((): Exports => ({}));
    for (const error of probe(catalogue, port)) {
      const row = {
        code: error.code,
        httpStatus: String(error.httpStatus),
        grpc: grpcCodeName(error.grpcCode),
      };
      rows.set(rowKey(row), row);
    }
  }
  return [...rows.values()].sort((a, b) => (rowKey(a) < rowKey(b) ? -1 : 1));
}

/** Text by which rows are compared. */
export function rowKey({ code, httpStatus, grpc }: ErrorRow): string {
  return `${code} ${httpStatus} ${grpc}`;
}

/** Every API error code that stands as a literal in `src`, in a comment or not; or in no catalogue of a block. */
export function codeLiterals(root: string, where: "anywhere" | "no catalogue" = "anywhere"): Set<string> {
  const paths = globSync(["src/runtime.ts", "src/{api,blocks,ingress}/**/*.ts"], { cwd: root });
  const texts = paths
    .filter((path) => !path.endsWith(".test.ts") && (where === "anywhere" || !path.endsWith("/errors.ts")))
    .map((path) => readFileSync(join(root, path), "utf8"));
  return new Set(
    texts.flatMap((text) => [...text.matchAll(/"(ERR_[A-Z_]+)"/g)].map((match) => match[1] ?? "")),
  );
}

async function importFrom(root: string, path: string): Promise<Exports> {
  return (await import(pathToFileURL(join(root, path)).href)) as Exports;
}

/** Calls each function with text, then with each error that the block's port knows, since these change the answer. */
function* probe(catalogue: Exports, port: Exports): Generator<ApiError> {
  const causes = Object.values(port).filter((value): value is new () => Error => isErrorClass(value));
  const probes: unknown[] = ["x", new Error("x"), ...causes.map((Cause) => new Cause())];
  for (const make of Object.values(catalogue)) {
    if (typeof make !== "function" || isErrorClass(make)) continue;
    for (const value of probes) {
      const made = attempt(make as (...values: unknown[]) => unknown, value);
      if (made instanceof ApiError && isComplete(made)) yield made;
    }
  }
}

/** A function that is no constructor of errors (it joins or reads something) may refuse a probe. */
function attempt(make: (...values: unknown[]) => unknown, value: unknown): unknown {
  try {
    return make(...new Array<unknown>(probeArguments).fill(value));
  } catch {
    return undefined;
  }
}

/** What passes an app's own code on, or copies another error, makes no row of its own. */
function isComplete({ code, grpcCode }: ApiError): boolean {
  return typeof code === "string" && typeof grpcCode === "number";
}

function isErrorClass(value: unknown): boolean {
  return typeof value === "function" && value.prototype instanceof Error;
}
