/** Targets outside the mesh: which id means one, and the call to it. The client is loaded with the first call. */
import type { Clock, MeshRequest, MeshResponse } from "../../../mesh/index.ts";
import type { AppPipeline } from "../../app/app-pipeline.ts";
import type { ExternalServers, ExternalTarget } from "../../app/external.ts";
import type { HttpEndpoint } from "../../config/http-endpoints.ts";
import type { SidecarOptions } from "../../config/options.ts";
import { externalUrl } from "./target.ts";

export class External {
  readonly #options: SidecarOptions;
  readonly #clock: Clock;
  readonly #pipeline: AppPipeline | undefined;
  readonly #named: ReadonlyMap<string, ExternalTarget>;
  #servers: Promise<ExternalServers> | undefined;

  constructor(
    endpoints: readonly HttpEndpoint[],
    options: SidecarOptions,
    clock: Clock,
    pipeline: AppPipeline | undefined,
  ) {
    this.#pipeline = pipeline;
    this.#options = options;
    this.#clock = clock;
    this.#named = new Map(endpoints.map((endpoint) => [endpoint.name, namedTarget(endpoint)]));
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
    return servers.invoke(target, request, signal);
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
    return { key: baseUrl, baseUrl, headers: [], tls, followRedirects: false };
  }

  async #load(): Promise<ExternalServers> {
    const { ExternalServers } = await import("../../app/external.ts");
    const { app, api } = this.#options;
    return new ExternalServers({
      maxConcurrency: app.maxConcurrency,
      maxHeaderBytes: api.readBufferBytes,
      pipeline: this.#pipeline,
      clock: this.#clock,
    });
  }
}

function namedTarget(endpoint: HttpEndpoint): ExternalTarget {
  const { name, baseUrl, headers, rootCA, certificate, privateKey } = endpoint;
  const renegotiation = endpoint.renegotiation !== "Never";
  // A name has no slash, so it never equals the URL of another target.
  return {
    key: name,
    baseUrl,
    headers,
    tls: { rootCA, certificate, privateKey, renegotiation, verify: true },
    followRedirects: true,
  };
}
