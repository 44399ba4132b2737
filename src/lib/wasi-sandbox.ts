/**
 * The system that a WebAssembly program sees: WASI preview 1 without files, network, arguments and environment. What it
 * prints goes to a function. A strict sandbox has a clock of its own and chance that repeats.
 */
import type { WASI } from "node:wasi";
import type { WasmFunctions, WasmInstance, WasmMemory } from "./web-assembly.ts";

export type WasiSandbox = {
  /** For `new WebAssembly.Instance`. */
  readonly imports: WasmFunctions;
  /** Runs what the program does at its start. Once, before anything else of it is called. */
  start(instance: WasmInstance): void;
};

export type WasiOptions = {
  /** Gets what the program writes to its output and error streams. */
  readonly print: (text: string) => void;
  readonly strict: boolean;
};

const success = 0;
const badFile = 8;
/** Longest text passed on of one write, bytes. */
const maxPrintBytes = 64 * 1024;
/** Where the clock of a strict sandbox begins, ns, and how far it goes each time it is asked. */
const strictStartNs = 1_640_995_200_000_000_000n;
const strictStepNs = 1_000_000n;

/** node's WASI is imported here: it warns that it is experimental as soon as it is. */
export async function createWasiSandbox(options: WasiOptions): Promise<WasiSandbox> {
  const { WASI: Wasi } = await import("node:wasi");
  const wasi: WASI = new Wasi({ version: "preview1", args: [], env: {}, preopens: {}, returnOnExit: true });
  let memory: WasmMemory | undefined;
  const view = (): DataView => new DataView(memory!.buffer);
  const output = {
    fd_write: (file: number, vectors: number, count: number, written: number): number => {
      if (file !== 1 && file !== 2) return badFile;
      const data = view();
      const pieces: Uint8Array[] = [];
      let size = 0;
      for (let i = 0; i < count; i++) {
        const length = data.getUint32(vectors + i * 8 + 4, true);
        if (size + length <= maxPrintBytes)
          pieces.push(new Uint8Array(memory!.buffer, data.getUint32(vectors + i * 8, true), length));
        size += length;
      }
      const text = Buffer.concat(pieces).toString("utf8").trimEnd();
      if (text !== "") options.print(text);
      data.setUint32(written, size, true);
      return success;
    },
  };
  const imports = { ...wasi.wasiImport, ...output, ...(options.strict ? repeatable(view) : {}) };
  return {
    imports,
    start(instance) {
      memory = instance.exports["memory"] as WasmMemory;
      if (instance.exports["_initialize"] !== undefined) wasi.initialize(instance);
      else if (instance.exports["_start"] !== undefined) wasi.start(instance);
      else wasi.finalizeBindings(instance);
    },
  };
}

/** Time and chance that are the same in every run. */
function repeatable(view: () => DataView): WasmFunctions {
  let nowNs = strictStartNs;
  let seed = 1;
  return {
    clock_time_get: (_clock: number, _precision: bigint, result: number): number => {
      view().setBigUint64(result, (nowNs += strictStepNs), true);
      return success;
    },
    random_get: (start: number, length: number): number => {
      const data = view();
      for (let i = 0; i < length; i++) {
        seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
        data.setUint8(start + i, seed >>> 24);
      }
      return success;
    },
  };
}
