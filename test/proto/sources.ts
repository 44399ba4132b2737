// The descriptors that the comparison works on: ours, out of the generated modules, and those of two published
// SDKs, taken out of the packages at test time. A source that cannot be had throws; it never yields less.

import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import type { DescFile, FileRegistry } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";

const root = join(import.meta.dirname, "..", "..");
const genDir = join(root, "proto", "gen");
/** The first run of reference.py installs wheels. */
const runTimeoutMs = 280_000;
const maxOutputBytes = 16 * 1024 * 1024;

const pythonFix = "Needed: python3 (3.10 or newer) with venv and, on the first run, a package index for pip";

/** The file descriptors inside every module of proto/gen. */
export async function ourFiles(): Promise<DescFile[]> {
  const paths = readdirSync(genDir, { recursive: true, encoding: "utf8" }).filter((p) =>
    p.endsWith("_pb.ts"),
  );
  const files: DescFile[] = [];
  for (const path of paths) {
    const module: Record<string, unknown> = await import(pathToFileURL(join(genDir, path)).href);
    const found = Object.values(module).filter(isDescFile);
    if (found.length !== 1) throw new Error(`${path} exports ${found.length} file descriptors, not one`);
    files.push(...found);
  }
  return files;
}

/** Descriptors carried by the Python SDK (dapr, dapr-ext-workflow) and by the package with google.rpc. */
export function pythonSdkFiles(): FileRegistry {
  const bytes = run("python3", [join(import.meta.dirname, "reference.py")], pythonFix);
  return readSet(bytes);
}

/** Descriptors of the .proto files that the JavaScript SDK ships, compiled by buf. */
export function javascriptSdkFiles(): FileRegistry {
  const buf = join(root, "node_modules", "@bufbuild", "buf", "bin", "buf");
  const protos = join(root, "node_modules", "@dapr", "dapr", "proto");
  const args = [
    buf,
    "build",
    protos,
    "--as-file-descriptor-set",
    "--exclude-source-info",
    "-o",
    "-#format=binpb",
  ];
  return readSet(run(process.execPath, args, "Run npm install"));
}

/** Reads a serialized FileDescriptorSet whose files come after the files they import. */
function readSet(bytes: Uint8Array): FileRegistry {
  return createFileRegistry(fromBinary(FileDescriptorSetSchema, bytes));
}

function run(command: string, args: string[], fix: string): Uint8Array {
  const result = spawnSync(command, args, { cwd: root, timeout: runTimeoutMs, maxBuffer: maxOutputBytes });
  if (result.error) throw new Error(`${command}: ${result.error.message}. ${fix}`, { cause: result.error });
  if (result.status !== 0) {
    throw new Error(`${command} ${args[0]} ended with ${result.status}. ${fix}\n${result.stderr.toString()}`);
  }
  return result.stdout;
}

function isDescFile(value: unknown): value is DescFile {
  return typeof value === "object" && value !== null && "kind" in value && value.kind === "file";
}
