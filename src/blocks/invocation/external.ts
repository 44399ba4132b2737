/** Targets outside the mesh: which id means one, and the call to it. The client is loaded with the first call. */
import type { Clock, MeshRequest, MeshResponse } from "../../../mesh/index.ts";
import type { AppPipelines } from "../../app/app-pipeline.ts";
import type { ExternalServers, ExternalTarget } from "../../app/external.ts";
import { createMeasureHttp, type MeasureHttp } from "../../app/measured.ts";
import type { Metrics } from "../../telemetry/metrics.ts";
import type { HttpEndpoint } from "../../config/http-endpoints.ts";
import type { SidecarOptions } from "../../config/options.ts";
import { externalUrl } from "./target.ts";

type ExternalParts = {
  readonly options: SidecarOptions;
  readonly clock: Clock;
  readonly pipelines: AppPipelines;
  readonly metrics: Metrics;
};

export class External {
  readonly #options: SidecarOptions;
  readonly #clock: Clock;
  readonly #pipelines: AppPipelines;
  #named: ReadonlyMap<string, ExternalTarget> = new Map();
  #revision = 0;
  readonly #measure: MeasureHttp;
  #servers: Promise<ExternalServers> | undefined;

  constructor({ options, clock, pipelines, metrics }: ExternalParts) {
    this.#pipelines = pipelines;
    this.#options = options;
    this.#clock = clock;
    this.#measure = createMeasureHttp(metrics, clock);
  }

  /** Named endpoints from here on. Calls under way end at the old ones. */
  set(endpoints: readonly HttpEndpoint[]): void {
    const before = [...this.#named.values()];
    const revision = ++this.#revision;
    this.#named = new Map(endpoints.map((endpoint) => [endpoint.name, namedTarget(endpoint, revision)]));
    const retire = (servers: ExternalServers): void => before.forEach((target) => servers.retire(target));
    this.#servers?.then(retire, () => {});
  }

  /**
   * The target of an id: a named endpoint, or a URL; undefined when it means an app. Throws ApiError for a broken URL.
   */
  find(id: string): ExternalTarget | undefined {
    const named = this.#named.get(id);
    if (named !== undefined) return named;
    const url = externalUrl(id);
    return url === undefined ? undefined : this.#urlTarget(url);
  }

  async invoke(target: ExternalTarget, request: MeshRequest, signal: AbortSignal): Promise<MeshResponse> {
    const servers = await (this.#servers ??= this.#load());
    return this.#measure(request, request.path.slice(1), () => servers.invoke(target, request, signal));
  }

  async close(): Promise<void> {
    await (await this.#servers)?.close();
  }

  #urlTarget(baseUrl: string): ExternalTarget {
    // These calls share the settings of the app's channel: an app on https is never verified.
    const verify = this.#options.app.protocol !== "https";
    const tls = {
      rootCA: undefined,
      certificate: undefined,
      privateKey: undefined,
      renegotiation: false,
      verify,
    };
    return { key: baseUrl, revision: 0, baseUrl, headers: [], tls, followRedirects: false };
  }

  async #load(): Promise<ExternalServers> {
    const { ExternalServers } = await import("../../app/external.ts");
    const { app, api } = this.#options;
    return new ExternalServers({
      maxConcurrency: app.maxConcurrency,
      maxHeaderBytes: api.readBufferBytes,
      pipelines: this.#pipelines,
      clock: this.#clock,
    });
  }
}

function namedTarget(endpoint: HttpEndpoint, revision: number): ExternalTarget {
  const { name, baseUrl, headers, rootCA, certificate, privateKey } = endpoint;
  const renegotiation = endpoint.renegotiation !== "Never";
  // A name has no slash, so it never equals the URL of another target.
  return {
    key: name,
    revision,
    baseUrl,
    headers,
    tls: { rootCA, certificate, privateKey, renegotiation, verify: true },
    followRedirects: true,
  };
}
