/** The two middleware pipelines of a sidecar: before its HTTP API, and before its app. None without handlers. */
import { AppPipeline } from "./app/app-pipeline.ts";
import type { OpenComponents } from "./components/open.ts";
import type { ConfigurationResource } from "./config/kinds/configuration.ts";
import type { SidecarOptions } from "./config/options.ts";
import { Pipeline } from "./middleware/pipeline.ts";
import type { Middleware } from "./middleware/port.ts";
import type { Log } from "./telemetry/log.ts";

export type Pipelines = {
  readonly http: Pipeline | undefined;
  readonly app: AppPipeline | undefined;
  /** Logs handlers without a component. Once the components are open. */
  warnSkipped(): void;
};

export type PipelinesInit = {
  readonly configuration: ConfigurationResource;
  readonly options: SidecarOptions;
  /** Undefined until they are open; no request comes before. */
  readonly components: () => Pick<OpenComponents, "get"> | undefined;
  readonly log: Log;
};

export function makePipelines({ configuration, options, components, log }: PipelinesInit): Pipelines {
  const make = (name: "httpPipeline" | "appHttpPipeline"): Pipeline | undefined => {
    const handlers = configuration[name];
    if (handlers.length === 0) return undefined;
    const find = (own: string) => components()?.get<Middleware>("middleware", own);
    return new Pipeline({ name, handlers, find, log });
  };
  const http = make("httpPipeline");
  const app = make("appHttpPipeline");
  return {
    http,
    app: app === undefined ? undefined : new AppPipeline(app, options.api.maxBodyBytes),
    warnSkipped() {
      for (const pipeline of [http, app]) pipeline?.warnSkipped();
    },
  };
}
