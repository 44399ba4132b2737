/** The two middleware pipelines of a sidecar: before its HTTP API, and before its app. None without handlers. */
import { AppPipeline } from "./app/app-pipeline.ts";
import type { OpenComponents } from "./components/open.ts";
import type { ConfigurationResource } from "./config/kinds/configuration.ts";
import type { SidecarOptions } from "./config/options.ts";
import { Pipeline } from "./middleware/pipeline.ts";
import type { Middleware } from "./middleware/port.ts";
import type { Log } from "./telemetry/log.ts";

export type PipelinesInit = {
  readonly options: SidecarOptions;
  /** Undefined until they are open; no request comes before. */
  readonly components: () => Pick<OpenComponents, "get"> | undefined;
  readonly log: Log;
};

/** To be read for each request: others take their place when the Configuration changes. */
export class Pipelines {
  readonly #init: PipelinesInit;
  #http: Pipeline | undefined;
  #app: Pipeline | undefined;
  #aroundApp: AppPipeline | undefined;

  constructor(init: PipelinesInit) {
    this.#init = init;
  }

  get http(): Pipeline | undefined {
    return this.#http;
  }

  get app(): AppPipeline | undefined {
    return this.#aroundApp;
  }

  set(configuration: PipelineSettings): void {
    this.#http = this.#make(configuration, "httpPipeline");
    const app = (this.#app = this.#make(configuration, "appHttpPipeline"));
    this.#aroundApp = app && new AppPipeline(app, this.#init.options.api.maxBodyBytes);
  }

  /** Logs handlers without a component. Once the components are open. */
  warnSkipped(): void {
    for (const pipeline of [this.#http, this.#app]) pipeline?.warnSkipped();
  }

  #make(configuration: PipelineSettings, name: keyof PipelineSettings): Pipeline | undefined {
    const { components, log } = this.#init;
    const handlers = configuration[name];
    if (handlers.length === 0) return undefined;
    const find = (own: string) => components()?.get<Middleware>("middleware", own);
    return new Pipeline({ name, handlers, find, log });
  }
}

type PipelineSettings = Pick<ConfigurationResource, "httpPipeline" | "appHttpPipeline">;
