/** The state block on given stores, called without sockets: routes by the real router, messages by the real schemas. */
import { type MessageInitShape, create } from "@bufbuild/protobuf";
import type { DescMethodUnary } from "@bufbuild/protobuf";
import { ApiError, httpErrorBody, toApiError } from "../../src/api/errors.ts";
import type { HttpCall, HttpReply } from "../../src/api/http.ts";
import type { Block, BlockHost } from "../../src/blocks/block.ts";
import { stateBlock } from "../../src/blocks/state/index.ts";
import type { StateStore } from "../../src/blocks/state/port.ts";
import { noPolicies, type Policies } from "../../src/resiliency/policies.ts";
import type { OpenComponent } from "../../src/components/open.ts";
import * as inMemory from "../../src/components/state/in-memory.ts";
import type { MetadataItem } from "../../src/config/kinds/component.ts";
import { Router } from "../../src/ingress/router.ts";
import { type ManualClock, manualClock } from "./manual-clock.ts";
import { silentLog } from "./silent-log.ts";

export type StateBlockOptions = {
  /** Stores by component name; one in-memory store called `store` when not given. */
  readonly stores?: Readonly<Record<string, StateStore>>;
  /** Component metadata of every store. */
  readonly properties?: Readonly<Record<string, string>>;
  /** Metadata entries of every store, as its file has them. */
  readonly metadata?: readonly Pick<MetadataItem, "name" | "secretKeyRef">[];
  /** As the options have it: `default` when the environment names none. */
  readonly namespace?: string;
  readonly policies?: Policies;
};

export type Answer = {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | readonly string[]>>;
  readonly text: string;
};

export type TestedBlock = {
  readonly block: Block;
  readonly clock: ManualClock;
  /** Counted calls as `component namespace operation success`. */
  readonly counted: readonly string[];
  readonly warnings: readonly string[];
  /** `path` with its query. Errors are answered as ingress does. */
  http(
    verb: string,
    path: string,
    init?: { body?: string | Buffer; headers?: Record<string, string> },
  ): Promise<Answer>;
  /** Rejects with the ApiError that ingress would put into the status. */
  grpc<M extends DescMethodUnary>(
    method: M,
    request: MessageInitShape<M["input"]>,
  ): Promise<MessageInitShape<M["output"]>>;
};

/** App `app`; the store's clock stands still until the test moves it. */
export async function testStateBlock(options: StateBlockOptions = {}): Promise<TestedBlock> {
  const clock = manualClock();
  const stores = options.stores ?? { store: await openInMemory(clock) };
  const counted: string[] = [];
  const warnings: string[] = [];
  const components = Object.entries(stores).map(([name, port]) =>
    component(name, port, options.properties ?? {}, options.metadata ?? []),
  );
  const host = {
    clock,
    policies: options.policies ?? noPolicies,
    options: { appId: "app", namespace: options.namespace ?? "default", namespaceEnv: options.namespace },
    components: {
      get: (_category: string, name: string) => components.find(({ resource }) => resource.name === name),
      all: () => components,
    },
    log: { ...silentLog, warn: (text: string) => void warnings.push(text) },
    metrics: {
      count:
        () =>
        (...labels: string[]) =>
          void counted.push(labels.join(" ")),
      latency: () => () => {},
    },
  } as unknown as BlockHost;
  const block = stateBlock(host);
  const router = new Router(block.http);
  return {
    block,
    clock,
    counted,
    warnings,
    http: (verb, path, init = {}) => callHttp(router, verb, path, init),
    async grpc(method, request) {
      const mounted = (await block.grpc()).find((candidate) => candidate.method === method);
      const call = { metadata: new Map(), signal: never, setHeader: () => {}, setTrailer: () => {} };
      const message = create(method.input, request as MessageInitShape<typeof method.input>);
      try {
        return (await mounted!.unary!(message, call)) as MessageInitShape<(typeof method)["output"]>;
      } catch (thrown) {
        throw toApiError(thrown);
      }
    },
  };
}

const never = new AbortController().signal;

/** An in-memory store on a clock. */
export function openInMemory(clock: ManualClock, maxEntries = 1_000): Promise<StateStore> {
  type Context = Parameters<typeof inMemory.open>[0];
  return inMemory.open({ clock, metadata: { maxEntries } } as unknown as Context);
}

function component(
  name: string,
  port: StateStore,
  properties: Readonly<Record<string, string>>,
  metadata: NonNullable<StateBlockOptions["metadata"]>,
): OpenComponent<StateStore> {
  const origin = { file: "store.yaml", line: 1, column: 1 };
  const resource = { name, origin, metadata } as unknown as OpenComponent["resource"];
  return { resource, port, properties, file: inMemory, capabilities: inMemory.capabilities };
}

async function callHttp(
  router: Router,
  verb: string,
  pathAndQuery: string,
  init: { body?: string | Buffer; headers?: Record<string, string> },
): Promise<Answer> {
  const [path = "", query = ""] = pathAndQuery.split("?");
  const match = router.find(verb, path);
  if (match === undefined) return { status: 404, headers: {}, text: "" };
  const search = new URLSearchParams(query);
  const metadata: Record<string, string> = {};
  for (const [name, value] of search) if (name.startsWith("metadata.")) metadata[name.slice(9)] ??= value;
  const call = {
    verb,
    path,
    query,
    params: match.params,
    headers: init.headers ?? {},
    signal: never,
    body: async () => Buffer.from(init.body ?? ""),
    queryValue: (name: string) => search.get(name) ?? undefined,
    queryValues: (name: string) => search.getAll(name),
    metadata: () => metadata,
  };
  try {
    // What blocks of state never look at is left out.
    return answer(await match.route.handle(call as unknown as HttpCall));
  } catch (thrown) {
    const error = toApiError(thrown);
    return { status: error.httpStatus, headers: {}, text: httpErrorBody(error) };
  }
}

function answer({ status, headers = {}, body }: HttpReply): Answer {
  if (body !== undefined && typeof body !== "string" && !(body instanceof Uint8Array))
    throw new Error("a stream");
  return { status, headers, text: body === undefined ? "" : Buffer.from(body as Uint8Array).toString() };
}

/** The ApiError of a call that must fail. */
export async function failure(call: Promise<unknown>): Promise<ApiError> {
  const outcome = await call.then(
    () => undefined,
    (error: unknown) => error,
  );
  if (outcome instanceof ApiError) return outcome;
  throw new Error(`expected an ApiError, got ${String(outcome)}`);
}

/** A store whose methods may be taken apart and replaced. */
export function bound(inner: StateStore): StateStore {
  return {
    get: (...args) => inner.get(...args),
    getMany: (...args) => inner.getMany!(...args),
    set: (...args) => inner.set(...args),
    delete: (...args) => inner.delete(...args),
    transact: (...args) => inner.transact!(...args),
    close: () => inner.close(),
  };
}

/** A store of which every call fails. */
export function broken(error: Error): StateStore {
  const fail = async (): Promise<never> => {
    throw error;
  };
  return { get: fail, getMany: fail, set: fail, delete: fail, transact: fail, close: async () => {} };
}
