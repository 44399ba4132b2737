/** Joins the mesh: wires connection, mux, calls, presence, tables and topics of one participant together. */
import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import type { NatsConnection } from "@nats-io/transport-node";
import type { NatsAccess } from "./access.ts";
import { Caller } from "./call.ts";
import { systemClock, type Clock } from "./clock.ts";
import { MeshConnection } from "./connection.ts";
import { JetStream } from "./jetstream.ts";
import { LargeValueTable } from "./large-values.ts";
import { Mux } from "./mux.ts";
import { Peers } from "./peers.ts";
import { Presence } from "./presence.ts";
import { findNats, type FindOptions, hasCredentials } from "./server/index.ts";
import { Server } from "./serve.ts";
import { WindowBudget } from "./stream.ts";
import { joinName, topicBase, topicTrees } from "./subjects.ts";
import { JetStreamTable } from "./table.ts";
import { JetStreamTopicRecords } from "./topic-records.ts";
import { JetStreamTopics } from "./topics.ts";
import { Topology } from "./topology.ts";
import type {
  CallOptions,
  LargeTable,
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
  TopicRecords,
  TopicStream,
  TopicStreamOptions,
  Unready,
} from "./types.ts";

const defaultPingIntervalMs = 2_000;
/** Who changes a group's shared consumer (group-lock.ts). */
const locks: TableOptions = { kind: "groups", name: [], storage: "memory" };

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
  /**
   * How often the connection to NATS is tried out, ms; it is given up when two pings in a row have no answer. Default
   * 2,000, so that a server that has frozen or a network that drops packets is noticed within 6 s.
   */
  readonly pingIntervalMs?: number;
};

/** What waits at this moment, for tests and diagnostics. */
export type MeshCounts = {
  /** Requests of any kind that have no answer yet. */
  readonly pendingRequests: number;
  /** Calls whose handler runs. */
  readonly servedCalls: number;
  /** Calls with an open stream, made or served. */
  readonly streams: number;
};

export type JoinedMesh = Mesh & { counts(): MeshCounts };

/** Starts to connect and returns at once; `ready()` tells when NATS is there. Everything survives NATS going away. */
export function joinMesh(options: JoinOptions): JoinedMesh {
  return new NatsMesh(options);
}

class NatsMesh implements JoinedMesh {
  readonly identity: MeshIdentity;
  readonly clock: Clock;
  readonly #connection: MeshConnection;
  readonly #js: JetStream;
  readonly #topology: Topology;
  readonly #caller: Caller;
  readonly #presence: Presence;
  readonly #tables = new Map<string, Table>();
  readonly #topics = new Map<string, TopicStream>();
  readonly #mux: Mux;
  /** Memory of received streams, shared by both sides. */
  readonly #budget = new WindowBudget();
  /** Those that take calls or still answer some. */
  readonly #servers = new Set<Server>();

  constructor(options: JoinOptions) {
    const {
      namespace,
      app,
      root = "weft",
      clock = systemClock,
      random = Math.random,
      log = () => {},
    } = options;
    const instance = randomBytes(8).toString("hex");
    this.identity = { root, namespace, app, instance };
    this.clock = clock;
    const settings = {
      clientName: `weft ${namespace}/${app}`,
      inbox: `_INBOX.${instance}`,
      access: options.access ?? {},
      clock,
      log,
      random,
      pingIntervalMs: options.pingIntervalMs ?? defaultPingIntervalMs,
    };
    this.#connection = new MeshConnection(settings, (signal) =>
      findNats(findOptions(options, clock, log, signal)),
    );
    this.#mux = new Mux(this.#connection);
    this.#js = new JetStream(this.#connection, this.#mux);
    this.#topology = new Topology(this.#js, log);
    const presenceTable = new JetStreamTable(this.#js, this.#topology, joinName([root, "presence"]), {
      storage: "memory",
    });
    const about = { host: hostname(), pid: process.pid, version: options.version ?? "" };
    this.#presence = new Presence(presenceTable, this.#connection, this.identity, about);
    const peers = new Peers(this.#connection, this.#mux, this.identity, (target) => this.presence(target));
    this.#caller = new Caller(this.#connection, this.#mux, this.identity, this.#budget, peers);
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

  client(signal?: AbortSignal): Promise<NatsConnection> {
    return this.#connection.client(signal);
  }

  call(request: MeshRequest, options: CallOptions): Promise<MeshResponse> {
    return this.#caller.call(request, options);
  }

  async serve(handler: ServeHandler): Promise<Served> {
    const server = new Server(this.#connection, this.identity, handler, this.#budget);
    this.#servers.add(server);
    try {
      await server.start();
    } catch (error) {
      this.#servers.delete(server);
      throw error;
    }
    return {
      drain: async (graceMs) => {
        await server.drain(graceMs);
        this.#servers.delete(server);
      },
    };
  }

  async announce(unready?: Unready): Promise<void> {
    await this.#connection.ready();
    await this.#presence.announce(unready);
  }

  presence(filter?: { namespace: string; app: string }): Promise<PresenceEntry[]> {
    return this.#presence.list(filter);
  }

  async table(options: TableOptions): Promise<Table> {
    return this.#table(options);
  }

  #table(options: TableOptions): Table {
    const bucket = joinName([this.identity.root, options.kind, ...options.name]);
    let table = this.#tables.get(bucket);
    if (table === undefined) {
      const { storage = "file", expiryMarks = false } = options;
      table = new JetStreamTable(this.#js, this.#topology, bucket, { storage, expiryMarks });
      this.#tables.set(bucket, table);
    }
    return table;
  }

  largeTable(options: TableOptions & { readonly maxValueBytes: number }): LargeTable {
    const { kind, name, storage = "file", expiryMarks = false, maxValueBytes } = options;
    const open = (bucketKind: string, marks: boolean): JetStreamTable => {
      const bucket = joinName([this.identity.root, bucketKind, ...name]);
      return new JetStreamTable(this.#js, this.#topology, bucket, { storage, expiryMarks: marks });
    };
    return new LargeValueTable({
      values: open(kind, expiryMarks),
      parts: open(`${kind}-parts`, false),
      maxValueBytes,
      maxPayloadBytes: () => this.maxPayloadBytes(),
      clock: this.clock,
      random: this.#js.connection.settings.random,
    });
  }

  async topics(options: TopicStreamOptions): Promise<TopicStream> {
    const stream = joinName([this.identity.root, "topics", ...options.name]);
    let topics = this.#topics.get(stream);
    if (topics === undefined) {
      const { root, instance } = this.identity;
      const base = topicBase(root, options.name);
      const names = { stream, base, instance, locks: this.#table(locks) };
      topics = new JetStreamTopics(this.#js, this.#topology, names, options);
      this.#topics.set(stream, topics);
    }
    return topics;
  }

  topicRecords(name: readonly string[]): TopicRecords {
    const { root } = this.identity;
    const stream = joinName([root, "topics", ...name]);
    return new JetStreamTopicRecords(this.#js, stream, topicTrees(topicBase(root, name)), this.#table(locks));
  }

  counts(): MeshCounts {
    return {
      pendingRequests: this.#mux.pendingCount,
      servedCalls: [...this.#servers].reduce((sum, server) => sum + server.inFlightCount, 0),
      streams: [...this.#servers].reduce((sum, server) => sum + server.streamCount, this.#caller.streamCount),
    };
  }

  async close(): Promise<void> {
    await this.#presence.withdraw();
    await Promise.all([...this.#servers].map((server) => server.drain(0)));
    await this.#connection.close();
  }
}

function findOptions(options: JoinOptions, clock: Clock, log: MeshLog, signal: AbortSignal): FindOptions {
  const { access = {} } = options;
  return {
    env: options.env ?? {},
    clock,
    signal,
    progress: (line) => log("info", line),
    credentialsGiven: hasCredentials(access),
    ...(options.natsUrls === undefined ? {} : { urls: options.natsUrls }),
    ...(options.home === undefined ? {} : { home: options.home }),
    ...(options.natsPort === undefined ? {} : { defaultPort: options.natsPort }),
    ...(options.natsServer === undefined ? {} : { binary: options.natsServer }),
  };
}
