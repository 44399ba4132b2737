/**
 * The methods of the gRPC server, with their codecs. Loaded at the first connection: the generated messages take
 * longer to import than the rest of the server.
 */
import type { DescMessage } from "@bufbuild/protobuf";
import { GrpcCode } from "../api/errors.ts";
import type { GrpcMethod } from "../api/grpc.ts";
import { GrpcWireError } from "../lib/grpc-wire.ts";

/** A mounted method over bytes. `decode` throws GrpcWireError for a message that is not the request's. */
export type TableMethod = GrpcMethod & {
  decode(bytes: Uint8Array): unknown;
  encode(init: unknown): Uint8Array;
};

export type MethodTable = {
  readonly methods: ReadonlyMap<string, TableMethod>;
  /** Names of the services that have at least one mounted method. */
  readonly services: ReadonlySet<string>;
  /** Paths of all methods of these services, mounted or not. */
  readonly declared: ReadonlySet<string>;
};

export type MethodSource = () => Promise<readonly GrpcMethod[]> | readonly GrpcMethod[];

/** Reads the methods and gives them codecs. Throws for a path that is mounted twice. */
export async function loadTable(source: MethodSource): Promise<MethodTable> {
  const [mounted, proto] = await Promise.all([source(), import("@bufbuild/protobuf")]);
  const methods = new Map<string, TableMethod>();
  const services = new Set<string>();
  const declared = new Set<string>();
  for (const method of mounted) {
    if (methods.has(method.path)) throw new Error(`gRPC method ${method.path} is mounted twice`);
    const { input, output, parent } = method.method;
    methods.set(method.path, {
      ...method,
      decode: (bytes) => decoded(proto.fromBinary<DescMessage>, input, bytes),
      encode: (init) =>
        proto.toBinary(output, proto.create(output, init as Parameters<typeof proto.create>[1])),
    });
    if (services.has(parent.typeName)) continue;
    services.add(parent.typeName);
    for (const { name } of parent.methods) declared.add(`/${parent.typeName}/${name}`);
  }
  return { methods, services, declared };
}

function decoded(
  fromBinary: (schema: DescMessage, bytes: Uint8Array) => unknown,
  schema: DescMessage,
  bytes: Uint8Array,
): unknown {
  try {
    return fromBinary(schema, bytes);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new GrpcWireError(GrpcCode.Internal, `grpc: error unmarshalling request: proto: ${reason}`);
  }
}

/** The text of Unimplemented for a path that is not in the table, in the words of gRPC servers. */
export function unknownText(path: string, table: MethodTable): string {
  const slash = path.lastIndexOf("/");
  if (!path.startsWith("/") || slash <= 0) return `malformed method name: ${JSON.stringify(path)}`;
  const service = path.slice(1, slash);
  if (!table.services.has(service)) return `unknown service ${service}`;
  return `unknown method ${path.slice(slash + 1)} for service ${service}`;
}
