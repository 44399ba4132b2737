/**
 * Requests handled by a WebAssembly program that speaks the http-wasm handler ABI (http-wasm.ts). One instance of it
 * serves all requests, each of its calls to the end; what belongs to a request goes into the context it returns.
 */
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { createWasiSandbox } from "../../lib/wasi-sandbox.ts";
import { webAssembly, type WasmMemory, type WasmModule } from "../../lib/web-assembly.ts";
import type { Middleware, MiddlewareReply, MiddlewareRequest, Next } from "../../middleware/port.ts";
import { wholeBody } from "../../middleware/reply.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";
import { type Exchange, features, type HostContext, hostFunctions, typedHeaders } from "./http-wasm.ts";

export const type = "middleware.http.wasm";
export const versions = ["v1"];
export const capabilities: readonly string[] = [];
export const metadataSchema = {
  url: {
    kind: "string",
    required: true,
    description: "Where the program is: file://path/to/guest.wasm, or http(s)://",
  },
  guestConfig: {
    kind: "string",
    default: "",
    description: "Text that the program may read as its configuration",
  },
  strictSandbox: {
    kind: "boolean",
    default: "false",
    description: "Time and chance are the same in every run",
  },
} as const satisfies MetadataSchema;

type Log = ComponentContext["log"];

/** Largest program, bytes. */
const maxProgramBytes = 64 * 1024 * 1024;

export async function open(context: ComponentContext<typeof metadataSchema>): Promise<Middleware> {
  const { url, guestConfig } = context.metadata;
  const strict = context.metadata.strictSandbox || context.strictWasm === true;
  const module = await webAssembly.compile(await load(url, context.signal));
  checkGuest(module);
  const make = (): Promise<Guest> => Guest.start(module, Buffer.from(guestConfig), strict, context.log);
  return new WasmMiddleware(make, await make(), readsBodies(module));
}

class WasmMiddleware implements Middleware {
  readonly #make: () => Promise<Guest>;
  readonly #readsBodies: boolean;
  #guest: Guest;

  constructor(make: () => Promise<Guest>, guest: Guest, readsBodies: boolean) {
    this.#make = make;
    this.#guest = guest;
    this.#readsBodies = readsBodies;
  }

  async handle(request: MiddlewareRequest, next: Next): Promise<MiddlewareReply> {
    const exchange = newExchange(request, this.#readsBodies ? await request.body() : noBody);
    const { proceeds, context } = await this.#run((guest) => guest.handleRequest(exchange));
    if (!proceeds) {
      const [, written = []] = exchange.written;
      return {
        status: exchange.status,
        headers: typedHeaders(exchange.headers),
        body: Buffer.concat(written),
      };
    }
    const [replaced] = exchange.written;
    if (replaced !== undefined) request.setBody(Buffer.concat(replaced));
    return this.#answer(exchange, context, next);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  async #answer(exchange: Exchange, context: number, next: Next): Promise<MiddlewareReply> {
    let reply: MiddlewareReply;
    try {
      reply = await next();
    } catch (error) {
      await this.#run((guest) => guest.handleResponse(exchange, context, true));
      throw error;
    }
    const buffered = (exchange.features & features.bufferResponse) !== 0;
    exchange.status = reply.status;
    // Headers that the guest has set for the answer beforehand stay beside those of the answer.
    exchange.headers = [...exchange.headers, ...reply.headers];
    if (buffered) exchange.body = await wholeBody(reply, exchange.request.maxBodyBytes);
    exchange.written[1] = undefined;
    await this.#run((guest) => guest.handleResponse(exchange, context, false));
    const { status, headers } = exchange;
    const [, replaced] = exchange.written;
    if (replaced === undefined) return { status, headers, body: buffered ? exchange.body : reply.body };
    return { status, headers, body: Buffer.concat(replaced) };
  }

  /** A guest that has trapped is in no known state: another one takes its place. */
  async #run<T>(call: (guest: Guest) => T): Promise<T> {
    const guest = this.#guest;
    try {
      return call(guest);
    } catch (error) {
      const fresh = await this.#make();
      if (this.#guest === guest) this.#guest = fresh;
      throw error;
    }
  }
}

const noBody = new Uint8Array(0);

function newExchange(request: MiddlewareRequest, requestBody: Uint8Array): Exchange {
  return {
    request,
    requestBody,
    status: 200,
    headers: [],
    body: noBody,
    read: [0, 0],
    written: [undefined, undefined],
    features: 0,
  };
}

type Exports = {
  readonly memory: WasmMemory;
  readonly handle_request: () => bigint;
  readonly handle_response: (context: number, isError: number) => void;
};

/** One instance of the program. */
class Guest {
  readonly #exports: Exports;
  readonly #host: HostContext;
  readonly #enter: (exchange: Exchange | undefined) => void;

  private constructor(exports: Exports, host: HostContext, enter: (exchange: Exchange | undefined) => void) {
    this.#exports = exports;
    this.#host = host;
    this.#enter = enter;
  }

  static async start(module: WasmModule, config: Uint8Array, strict: boolean, log: Log): Promise<Guest> {
    const wasi = await createWasiSandbox({ print: (text) => log.debug(text), strict });
    let current: Exchange | undefined;
    const host: HostContext = {
      memory: () => instance.exports["memory"] as WasmMemory,
      current: () => current,
      config,
      features: 0,
      log: (level, text) => write(log, level, text),
      logs: (level) => level >= levels.debug && level <= levels.error,
    };
    const imports = { http_handler: hostFunctions(host), wasi_snapshot_preview1: wasi.imports };
    const instance = new webAssembly.Instance(module, imports);
    wasi.start(instance);
    return new Guest(instance.exports as Exports, host, (exchange) => (current = exchange));
  }

  handleRequest(exchange: Exchange): { readonly proceeds: boolean; readonly context: number } {
    exchange.features |= this.#host.features;
    const result = this.#in(exchange, () => BigInt.asUintN(64, this.#exports.handle_request()));
    return { proceeds: (result & 0xffff_ffffn) === 1n, context: Number(result >> 32n) };
  }

  handleResponse(exchange: Exchange, context: number, isError: boolean): void {
    this.#in(exchange, () => this.#exports.handle_response(context, isError ? 1 : 0));
  }

  #in<T>(exchange: Exchange, call: () => T): T {
    this.#enter(exchange);
    try {
      return call();
    } finally {
      this.#enter(undefined);
    }
  }
}

const levels = { debug: -1, info: 0, warn: 1, error: 2 };

function write(log: Log, level: number, text: string): void {
  if (level === levels.debug) log.debug(text);
  else if (level === levels.info) log.info(text);
  else if (level === levels.warn) log.warn(text);
  else if (level === levels.error) log.error(text);
}

/** Whether the program can ask for the request's body; if not, that streams past. */
function readsBodies(module: WasmModule): boolean {
  return webAssembly.Module.imports(module).some(
    (wanted) => wanted.module === "http_handler" && wanted.name === "read_body",
  );
}

function checkGuest(module: WasmModule): void {
  const given = new Set(webAssembly.Module.exports(module).map(({ name, kind }) => `${kind} ${name}`));
  const wanted = ["function handle_request", "function handle_response", "memory memory"];
  const missing = wanted.filter((name) => !given.has(name));
  if (missing.length > 0) {
    const fix = "build it for the http-wasm handler ABI (https://http-wasm.io)";
    throw new Error(`the program does not export ${missing.join(" and ")}; ${fix}`);
  }
}

async function load(url: string, signal: AbortSignal): Promise<Buffer> {
  if (url.startsWith("file://"))
    return readFile(url.startsWith("file:///") ? fileURLToPath(url) : url.slice(7));
  if (!/^https?:\/\//.test(url)) {
    throw new Error(
      `metadata field "url": "${url}" is neither a file:// nor an http(s):// address; ` +
        "images of OCI registries cannot be fetched, download the program first",
    );
  }
  const answer = await fetch(url, { signal });
  if (!answer.ok) throw new Error(`${url} answers ${answer.status}`);
  const length = Number(answer.headers.get("content-length") ?? 0);
  const bytes = length > maxProgramBytes ? undefined : Buffer.from(await answer.arrayBuffer());
  if (bytes === undefined || bytes.length > maxProgramBytes)
    throw new Error(`${url} is larger than ${maxProgramBytes} bytes`);
  return bytes;
}
