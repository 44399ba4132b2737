/** The part of the WebAssembly API that the sidecar uses, with types: those of the browser are not loaded here. */

export type WasmModule = { readonly isWasmModule?: never };
export type WasmMemory = { readonly buffer: ArrayBuffer };
export type WasmInstance = { readonly exports: Readonly<Record<string, unknown>> };
/** Functions that a program imports. 64-bit numbers are bigint. */
export type WasmFunctions = Readonly<Record<string, (...values: never[]) => number | bigint | void>>;

type WebAssemblyApi = {
  compile(bytes: Uint8Array): Promise<WasmModule>;
  readonly Module: {
    imports(module: WasmModule): readonly { readonly module: string; readonly name: string }[];
    exports(module: WasmModule): readonly { readonly name: string; readonly kind: string }[];
  };
  readonly Instance: new (
    module: WasmModule,
    imports: Readonly<Record<string, WasmFunctions>>,
  ) => WasmInstance;
};

export const webAssembly: WebAssemblyApi = (globalThis as unknown as { WebAssembly: WebAssemblyApi })
  .WebAssembly;
