/** Joins the mesh: wires connection, mux, calls, presence, tables and topics of one participant together. */
import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { Caller } from "./call.ts";
import { systemClock, type Clock } from "./clock.ts";
import { MeshConnection, type NatsAccess } from "./connection.ts";
import { JetStream } from "./jetstream.ts";
import { Mux } from "./mux.ts";
import { Presence } from "./presence.ts";
import { findNats } from "./server/index.ts";
import { Server } from "./serve.ts";
import { joinName, topicBase } from "./subjects.ts";
import { JetStreamTable } from "./table.ts";
import { JetStreamTopics } from "./topics.ts";
import { Topology } from "./topology.ts";
import type {
  CallOptions,
  Mesh,
  MeshIdentity,
  MeshLog,
  MeshRequest,
  MeshResponse,
  MeshStatus,
  PresenceEntry,
  Served,
  ServeHandler,
  Table,
  TableOptions,
  TopicStream,
  TopicStreamOptions,
} from "./types.ts";

export type JoinOptions = {
  readonly namespace: string;
  readonly app: string;
  /** First subject token; several meshes may share a server under different roots. */
  readonly root?: string;
  /** Way 1 of finding NATS. Absent: look on 127.0.0.1:4222, else start or join the shared server. */
  readonly natsUrls?: readonly string[];
  readonly access?: NatsAccess;
  /** Folder of the shared server's data; see server/home.ts for its default. */
  readonly home?: string;
  /** Port of this machine where a server is looked for and started; 4222. */
  readonly natsPort?: number;
  /** nats-server program to start, when one must be started. */
  readonly natsServer?: string;
  readonly env?: NodeJS.ProcessEnv;
  readonly clock?: Clock;
  readonly random?: () => number;
  readonly log?: MeshLog;
  /** Version text shown in presence. */
  readonly version?: string;
};

/** Starts to connect and returns at once; `ready()` tells when NATS is there. Everything survives NATS going away. */
export function joinMesh(options: JoinOptions): Mesh {
  return new NatsMesh(options);
}

class NatsMesh implements Mesh {
  readonly identity: MeshIdentity;
  readonly clock: Clock;
  readonly #connection: MeshConnection;
  readonly #js: JetStream;
  readonly #topology: Topology;
  readonly #caller: Caller;
  readonly #presence: Presence;
  readonly #tables = new Map<string, Table>();
  readonly #topics = new Map<string, TopicStream>();

  constructor(options: JoinOptions) {
    const { namespace, app, root = "weft", clock = systemClock, random = Math.random, log = () => {} } = options;
    const instance = randomBytes(8).toString("hex");
    this.identity = { root, namespace, app, instance };
    this.clock = clock;
    const env = options.env ?? {};
    this.#connection = new MeshConnection(
      { clientName: `weft ${namespace}/${app}`, inbox: `_INBOX.${instance}`, access: options.access ?? {}, clock, log, random },
      (signal) =>
        findNats({
          env,
          clock,
          signal,
          progress: (line) => log("info", line),
          credentialsGiven: options.access?.credsFile !== undefined || options.access?.user !== undefined,
          ...(options.natsUrls === undefined ? {} : { urls: [...options.natsUrls] }),
          ...(options.natsPort === undefined ? {} : { defaultPort: options.natsPort }),
          ...(options.home === undefined ? {} : { home: options.home }),
          ...(options.natsServer === undefined ? {} : { binary: options.natsServer }),
        }),
    );
    const mux = new Mux(this.#connection);
    this.#js = new JetStream(this.#connection, mux);
    this.#topology = new Topology(this.#js, log);
    this.#connection.onChange((connected) => connected && this.#topology.forgetMemory());
    this.#caller = new Caller(this.#connection, mux, this.identity);
    const presenceTable = new JetStreamTable(this.#js, this.#topology, joinName([root, "presence"]), "memory");
    const about = { host: hostname(), pid: process.pid, version: options.version ?? "" };
    this.#presence = new Presence(presenceTable, this.#connection, this.identity, about);
    this.#connection.start();
  }

  maxPayloadBytes(): number {
    return this.#connection.maxPayloadBytes();
  }

  status(): MeshStatus {
    return { connected: this.#connection.connected, ...this.#connection.describe() };
  }

  onStatus(listener: (status: MeshStatus) => void): () => void {
    return this.#connection.onChange(() => listener(this.status()));
  }

  ready(signal?: AbortSignal): Promise<void> {
    return this.#connection.ready(signal);
  }

  call(request: MeshRequest, options: CallOptions): Promise<MeshResponse> {
    return this.#caller.call(request, options);
  }

  async serve(handler: ServeHandler): Promise<Served> {
    const server = new Server(this.#connection, this.identity, handler);
    await this.#connection.ready();
    server.start();
    await this.#connection.flush();
    return server;
  }

  async announce(): Promise<void> {
    await this.#connection.ready();
    await this.#presence.announce();
  }

  presence(filter?: { namespace: string; app: string }): Promise<PresenceEntry[]> {
    return this.#presence.list(filter);
  }

  async table(options: TableOptions): Promise<Table> {
    const bucket = joinName([this.identity.root, options.kind, ...options.name]);
    let table = this.#tables.get(bucket);
    if (table === undefined) {
      table = new JetStreamTable(this.#js, this.#topology, bucket, options.storage ?? "file");
      this.#tables.set(bucket, table);
    }
    return table;
  }

  async topics(options: TopicStreamOptions): Promise<TopicStream> {
    const stream = joinName([this.identity.root, "topics", ...options.name]);
    let topics = this.#topics.get(stream);
    if (topics === undefined) {
      const base = topicBase(this.identity.root, options.name);
      topics = new JetStreamTopics(this.#js, this.#topology, stream, base, options);
      this.#topics.set(stream, topics);
    }
    return topics;
  }

  async close(): Promise<void> {
    await this.#presence.withdraw();
    await this.#connection.close();
  }
}
