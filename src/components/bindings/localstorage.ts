/**
 * Files below one folder of this host. Names cannot leave the folder, whatever they hold.
 */
import { randomUUID } from "node:crypto";
import { mkdir, readdir, readFile, realpath, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join, relative, resolve, sep } from "node:path";
import type { Binding, BindingRequest, BindingResponse } from "../../blocks/bindings/port.ts";
import { goUnquote } from "../../lib/go-quote.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";

export const type = "bindings.localstorage";
export const versions = ["v1"];
export const capabilities = ["OUTPUT_BINDING"];
export const metadataSchema = {
  rootPath: {
    kind: "string",
    required: true,
    description: "Folder that holds the files; created when absent",
  },
} as const satisfies MetadataSchema;

/** Folders of the system that are never used as root. */
const forbidden = ["/proc", "/sys", "/boot", "/var/run/secrets"];
/** Largest file that `get` reads, bytes. */
const maxFileBytes = 512 * 1024 * 1024;
/** Most files that `list` names. */
const maxListed = 100_000;

export async function open({ metadata }: ComponentContext<typeof metadataSchema>): Promise<Binding> {
  const root = await prepareRoot(metadata.rootPath);
  const steps: Readonly<Record<string, (request: BindingRequest) => Promise<BindingResponse | undefined>>> = {
    create: (request) => create(root, request),
    get: (request) => get(root, request),
    list: (request) => list(root, request),
    delete: (request) => remove(root, request),
  };
  return {
    operations: Object.keys(steps),
    invoke: (request) => steps[request.operation]!(request),
    close: () => Promise.resolve(),
  };
}

async function prepareRoot(rootPath: string): Promise<string> {
  const wanted = resolve(rootPath);
  refuseSystem(wanted);
  await mkdir(wanted, { recursive: true });
  const root = await realpath(wanted);
  refuseSystem(root);
  return root;
}

function refuseSystem(path: string): void {
  const found = forbidden.find((folder) => path === folder || path.startsWith(folder + sep));
  if (found !== undefined)
    throw new Error(`metadata field "rootPath": ${path} is inside ${found}; choose another folder`);
}

async function create(root: string, { data, metadata }: BindingRequest): Promise<BindingResponse> {
  const name = metadata["fileName"] ?? "";
  const path = await within(root, name === "" ? randomUUID() : name);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, content(data));
  return respond({ fileName: relative(root, path) });
}

async function get(root: string, { metadata }: BindingRequest): Promise<BindingResponse> {
  const path = await within(root, required(metadata["fileName"]));
  const { size } = await stat(path).catch((error: unknown) => Promise.reject(missing(path, error)));
  if (size > maxFileBytes)
    throw new Error(`file ${path} has ${size} bytes; at most ${maxFileBytes} are read`);
  return { data: await readFile(path), metadata: {} };
}

async function list(root: string, { metadata }: BindingRequest): Promise<BindingResponse> {
  const path = await within(root, metadata["fileName"] ?? "");
  const found = await stat(path).catch((error: unknown) => Promise.reject(missing(path, error)));
  if (!found.isDirectory()) return respond([path]);
  const entries = await readdir(path, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  if (files.length > maxListed)
    throw new Error(`${path} holds ${files.length} files; at most ${maxListed} are listed`);
  return respond(files.length === 0 ? null : files.sort());
}

async function remove(root: string, { metadata }: BindingRequest): Promise<undefined> {
  const path = await within(root, required(metadata["fileName"]));
  await rm(path).catch((error: unknown) => Promise.reject(missing(path, error)));
}

function required(fileName: string | undefined): string {
  if (fileName === undefined || fileName === "") {
    throw new Error('request metadata "fileName" is required: the file, relative to rootPath');
  }
  return fileName;
}

/** The file that a name means. `..` ends at the root, and a link that leads out of it is refused. */
async function within(root: string, name: string): Promise<string> {
  if (name.includes("\0")) throw new Error('request metadata "fileName" holds a NUL character');
  const path = join(root, resolve(sep, name));
  for (let part = path; part !== root && part.length > root.length; part = dirname(part)) {
    const real = await realpath(part).catch(() => undefined);
    if (real === undefined) continue;
    if (real !== root && !real.startsWith(root + sep)) {
      throw new Error(`file ${name} is a link that leads out of rootPath`);
    }
    break;
  }
  return path;
}

/** A JSON string is unquoted, and base64 is decoded where the text is nothing else. */
function content(data: Uint8Array): Uint8Array {
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  const text = bytes.toString();
  const unquoted = goUnquote(text);
  const inner = unquoted === undefined ? bytes : Buffer.from(unquoted);
  const plain = unquoted ?? text;
  const decoded = Buffer.from(plain, "base64");
  return plain !== "" && decoded.toString("base64") === plain ? decoded : inner;
}

function missing(path: string, error: unknown): unknown {
  const { code } = error as NodeJS.ErrnoException;
  return code === "ENOENT" ? new Error(`file not found: ${path}`, { cause: error }) : error;
}

function respond(value: unknown): BindingResponse {
  return { data: Buffer.from(JSON.stringify(value)), metadata: {} };
}
