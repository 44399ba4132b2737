/**
 * What receives traces in tests: an OTLP receiver on the messages that OpenTelemetry publishes (HTTP and gRPC), and a
 * real Zipkin server with its query API.
 */
import { existsSync, mkdirSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { eventually } from "./eventually.ts";
import { withFileLock } from "./file-lock.ts";
import { checkout } from "./paths.ts";
import { freePort } from "./ports.ts";
import { inheritedEnv, startProcess } from "./process.ts";
import { startPython } from "./python.ts";

/** A span as the receiver decoded it. Ids in hex. */
export type ReceivedSpan = {
  readonly resource: Readonly<Record<string, unknown>>;
  readonly scope: string;
  /** Of the request that brought it. */
  readonly headers: Readonly<Record<string, string>>;
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId: string;
  readonly traceState: string;
  readonly name: string;
  readonly kind: string;
  readonly startNs: string;
  readonly endNs: string;
  readonly attributes: Readonly<Record<string, unknown>>;
  readonly error: string | null;
};

export type OtlpReceiver = AsyncDisposable & {
  readonly httpPort: number;
  readonly grpcPort: number;
  spans(): ReceivedSpan[];
  /** Waits until `count` spans of a trace have come. */
  trace(traceId: string, count: number): Promise<ReceivedSpan[]>;
};

export async function startOtlpReceiver(): Promise<OtlpReceiver> {
  const [httpPort, grpcPort] = [await freePort(), await freePort()];
  const running = await startPython("test/kit/otlp_receiver.py", [String(httpPort), String(grpcPort)]);
  await eventually(
    () => {
      if (!running.logs().includes("ready\n")) throw new Error(`the receiver is not up: ${running.logs()}`);
    },
    { timeoutMs: 30_000 },
  );
  const spans = (): ReceivedSpan[] =>
    running
      .logs()
      .split("\n")
      .filter((line) => line.startsWith("{") && line.endsWith("}"))
      .map((line) => JSON.parse(line) as ReceivedSpan);
  return {
    httpPort,
    grpcPort,
    spans,
    trace: (traceId, count) =>
      eventually(
        () => {
          const found = spans().filter((span) => span.traceId === traceId);
          if (found.length >= count) return found;
          throw new Error(`${found.length} of ${count} spans: ${found.map((span) => span.name).join()}`);
        },
        { timeoutMs: 20_000 },
      ),
    [Symbol.asyncDispose]: () => running[Symbol.asyncDispose](),
  };
}

export type Zipkin = AsyncDisposable & {
  readonly url: string;
  /** Spans of a trace by Zipkin's own query API, once there are `count`. */
  trace(traceId: string, count: number): Promise<readonly ZipkinSpan[]>;
};

export type ZipkinSpan = {
  readonly id: string;
  readonly parentId?: string;
  readonly name: string;
  readonly kind?: string;
  readonly localEndpoint: { readonly serviceName: string };
  readonly tags: Readonly<Record<string, string>>;
};

const zipkinVersion = "3.4.4";

/** Zipkin as its makers publish it on Maven Central, with storage in memory. */
export async function startZipkin(): Promise<Zipkin> {
  const jar = await zipkinJar();
  const port = await freePort();
  const running = await startProcess({
    name: "zipkin",
    command: "java",
    args: ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx160m", "-jar", jar],
    env: { ...inheritedEnv(), QUERY_PORT: String(port), STORAGE_TYPE: "mem", SELF_TRACING_ENABLED: "false" },
  });
  const url = `http://127.0.0.1:${port}`;
  await eventually(
    async () => {
      const { status } = await fetch(`${url}/health`);
      if (status !== 200) throw new Error(`zipkin says ${status}`);
    },
    { timeoutMs: 150_000 },
  );
  return {
    url,
    trace: (traceId, count) =>
      eventually(
        async () => {
          const answer = await fetch(`${url}/api/v2/trace/${traceId}`);
          if (answer.status !== 200) throw new Error(`zipkin knows no trace ${traceId}`);
          const spans = (await answer.json()) as ZipkinSpan[];
          if (spans.length < count) throw new Error(`zipkin has ${spans.length} of ${count} spans`);
          return spans;
        },
        { timeoutMs: 20_000 },
      ),
    [Symbol.asyncDispose]: () => running[Symbol.asyncDispose](),
  };
}

function zipkinJar(): Promise<string> {
  const folder = join(checkout, ".cache", "zipkin");
  mkdirSync(folder, { recursive: true });
  const jar = join(folder, `zipkin-server-${zipkinVersion}-exec.jar`);
  return withFileLock(`${folder}.lock`, async () => {
    if (existsSync(jar)) return jar;
    await using running = await startProcess({
      name: "mvn",
      command: "mvn",
      args: [
        "-q",
        "-B",
        "dependency:copy",
        `-Dartifact=io.zipkin:zipkin-server:${zipkinVersion}:jar:exec`,
        `-DoutputDirectory=${folder}`,
      ],
      env: { ...inheritedEnv(), HOME: homedir() },
      cwd: folder,
    });
    const code = await running.exited;
    if (code !== 0 || !existsSync(jar))
      throw new Error(`mvn ended with code ${code}. Needed: Maven and a JDK 17 or newer\n${running.logs()}`);
    return jar;
  });
}
