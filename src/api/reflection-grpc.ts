/**
 * gRPC server reflection, v1 and v1alpha: what the mounted services look like, for tools such as grpcurl. Answers come
 * from the descriptors inside the generated code.
 */
import {
  createRegistry,
  type DescFile,
  type DescMethod,
  type DescService,
  type MessageInitShape,
  type Registry,
  toBinary,
} from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import {
  ServerReflection,
  type ServerReflectionRequest,
  type ServerReflectionResponseSchema,
} from "../../proto/gen/grpc/reflection/v1/reflection_pb.ts";
import { ServerReflection as ServerReflectionAlpha } from "../../proto/gen/grpc/reflection/v1alpha/reflection_pb.ts";
import { GrpcCode } from "./errors.ts";
import { type GrpcMethod, streaming } from "./grpc.ts";

type Answer = NonNullable<MessageInitShape<typeof ServerReflectionResponseSchema>["messageResponse"]>;

/** Reflection of these methods' services and of itself. An app may have it too. */
export function reflectionMethods(mounted: readonly GrpcMethod[]): GrpcMethod[] {
  const own = [ServerReflection, ServerReflectionAlpha];
  const services = new Set<DescService>([...mounted.map(({ method }) => method.parent), ...own]);
  let made: Reflected | undefined;
  const reflected = (): Reflected => (made ??= new Reflected(services));
  // Both versions have the same messages under other names.
  return own.map(({ method }) => {
    const info = method.serverReflectionInfo as typeof ServerReflection.method.serverReflectionInfo;
    return Object.assign(
      streaming(info, (requests) => answers(reflected, requests)),
      { yields: true },
    );
  });
}

async function* answers(reflected: () => Reflected, requests: AsyncIterable<ServerReflectionRequest>) {
  /** Files that this client has. */
  const sent = new Set<DescFile>();
  for await (const request of requests) {
    yield {
      validHost: request.host,
      originalRequest: request,
      messageResponse: reflected().answer(request, sent),
    };
  }
}

class Reflected {
  readonly #services: readonly string[];
  readonly #files = new Map<string, DescFile>();
  readonly #registry: Registry;
  readonly #bytes = new Map<DescFile, Uint8Array>();

  constructor(services: ReadonlySet<DescService>) {
    this.#services = [...services].map(({ typeName }) => typeName).toSorted();
    for (const { file } of services) this.#add(file);
    this.#registry = createRegistry(...this.#files.values());
  }

  answer({ messageRequest: { case: kind, value } }: ServerReflectionRequest, sent: Set<DescFile>): Answer {
    switch (kind) {
      case "listServices":
        return {
          case: "listServicesResponse",
          value: { service: this.#services.map((name) => ({ name })) },
        };
      case "fileByFilename":
        return this.#fileAnswer(this.#files.get(value), value, sent);
      case "fileContainingSymbol":
        return this.#fileAnswer(this.#fileOf(value), value, sent);
      case "allExtensionNumbersOfType":
        if (this.#registry.getMessage(value) === undefined) return notFound(value);
        return { case: "allExtensionNumbersResponse", value: { baseTypeName: value } };
      case "fileContainingExtension":
        return notFound(`${value.containingType} extension ${value.extensionNumber}`);
      default:
        return failure(GrpcCode.InvalidArgument, "the request asks for nothing");
    }
  }

  #add(file: DescFile): void {
    if (this.#files.has(file.proto.name)) return;
    this.#files.set(file.proto.name, file);
    for (const imported of file.dependencies) this.#add(imported);
  }

  #fileAnswer(file: DescFile | undefined, asked: string, sent: Set<DescFile>): Answer {
    if (file === undefined) return notFound(asked);
    const files = new Set<DescFile>([file]);
    for (const one of files)
      for (const imported of one.dependencies) if (!sent.has(imported)) files.add(imported);
    for (const one of files) sent.add(one);
    return {
      case: "fileDescriptorResponse",
      value: { fileDescriptorProto: [...files].map((one) => this.#bytesOf(one)) },
    };
  }

  #bytesOf(file: DescFile): Uint8Array {
    let bytes = this.#bytes.get(file);
    if (bytes === undefined) this.#bytes.set(file, (bytes = toBinary(FileDescriptorProtoSchema, file.proto)));
    return bytes;
  }

  #fileOf(symbol: string): DescFile | undefined {
    const whole = this.#registry.get(symbol);
    if (whole !== undefined) return whole.file;
    const dot = symbol.lastIndexOf(".");
    const parent = this.#registry.get(symbol.slice(0, Math.max(0, dot)));
    const name = symbol.slice(dot + 1);
    if (parent?.kind === "service") return has(parent.methods, name) ? parent.file : undefined;
    if (parent?.kind === "message") return has(parent.fields, name) ? parent.file : undefined;
    return undefined;
  }
}

function has(members: readonly (DescMethod | { readonly name: string })[], name: string): boolean {
  return members.some((member) => member.name === name);
}

function notFound(what: string): Answer {
  return failure(GrpcCode.NotFound, `not found: ${what}`);
}

function failure(errorCode: GrpcCode, errorMessage: string): Answer {
  return { case: "errorResponse", value: { errorCode, errorMessage } };
}
