/**
 * One `weft run` from start to end: the sidecar and the app beside it. Whichever event comes first (the app ends, the
 * sidecar ends, Ctrl-C, a failure) decides the exit code; then everything that was started is ended.
 */
import type { Clock } from "../../mesh/index.ts";
import { Child, type ChildEnd } from "./child.ts";
import { CliError, exitCodes, textOf } from "./failure.ts";
import { startGuard, type Guard } from "./guard.ts";
import type { RunPlan } from "./run-plan.ts";
import { sidecarApi, type SidecarApi } from "./sidecar-api.ts";
import { ownCompileCache, sidecarCommand } from "./sidecar-command.ts";
import type { StopRequest } from "./stop-request.ts";
import type { Terminal } from "./terminal.ts";

export type SessionOptions = {
  readonly plan: RunPlan;
  /** Path of the app's program; undefined to run the sidecar alone. */
  readonly program: string | undefined;
  readonly env: NodeJS.ProcessEnv;
  readonly terminal: Terminal;
  readonly stop: StopRequest;
  readonly clock: Clock;
};

type Ending =
  | { readonly by: "app"; readonly end: ChildEnd }
  | { readonly by: "sidecar"; readonly end: ChildEnd }
  | { readonly by: "user" }
  | { readonly by: "failure"; readonly error: unknown };

const appGraceMs = 5_000;
/** After this the app is started although the sidecar is not ready (Dapr's), ms. */
const readyMs = 60_000;
const keptLines = 100;
const shownLines = 10;

/** Runs until the end and resolves with the exit code; nothing it started is left then. */
export async function runSession(options: SessionOptions): Promise<number> {
  return new Session(options).run();
}

class Session {
  readonly #options: SessionOptions;
  readonly #guard: Guard;
  readonly #api: SidecarApi;
  readonly #ending = Promise.withResolvers<Ending>();
  /** Aborted at the end, so that no step goes on. */
  readonly #over = new AbortController();
  readonly #lastWords: string[] = [];
  #app: Child | undefined;
  #sidecar: Child | undefined;

  constructor(options: SessionOptions) {
    this.#options = options;
    this.#guard = startGuard();
    this.#api = sidecarApi(options.plan.sidecar, options.plan.apiToken, options.clock);
  }

  async run(): Promise<number> {
    const { stop } = this.#options;
    void stop.asked.then(() => this.#ending.resolve({ by: "user" }));
    void stop.insisted.then(() => this.#force());
    const bringingUp = this.#bringUp().catch((error: unknown) => {
      if (!this.#over.signal.aborted) this.#ending.resolve({ by: "failure", error });
    });
    const ending = await this.#ending.promise;
    this.#over.abort();
    await bringingUp;
    return this.#finish(ending);
  }

  async #bringUp(): Promise<void> {
    const { plan, program, terminal } = this.#options;
    const { http, grpc } = plan.ports;
    terminal.info(`Starting Weft with id ${plan.appId}. HTTP Port: ${http}. gRPC Port: ${grpc}`);
    this.#sidecar = await this.#startSidecar();
    void this.#sidecar.ended.then((end) => this.#ending.resolve({ by: "sidecar", end }));
    if (program !== undefined) {
      // Without a port nothing tells when the app is up, so it may use the sidecar from its first line on.
      if (plan.appPort === 0) await this.#sidecarReady();
      if (this.#over.signal.aborted) return;
      this.#app = await this.#startApp(program);
      void this.#app.ended.then((end) => this.#ending.resolve({ by: "app", end }));
    }
    await this.#announceReady();
  }

  async #startSidecar(): Promise<Child> {
    const { plan, env, terminal, clock } = this.#options;
    const { args, ...program } = sidecarCommand();
    return Child.start({
      ...program,
      args: [...args, ...plan.sidecarArgs],
      env,
      stdin: "ignore",
      guard: this.#guard,
      clock,
      onLine: (line) => {
        this.#lastWords.push(line);
        if (this.#lastWords.length > keptLines) this.#lastWords.shift();
        return terminal.sidecarLine(line);
      },
    });
  }

  async #startApp(program: string): Promise<Child> {
    const { plan, env, terminal, clock } = this.#options;
    const { NODE_COMPILE_CACHE: compileCache, ...rest } = env;
    const theirs = compileCache === undefined || compileCache === ownCompileCache() ? rest : env;
    const [name = program, ...args] = plan.command;
    return Child.start({
      command: program,
      argv0: name,
      args,
      env: { ...theirs, ...plan.appEnv },
      stdin: "inherit",
      guard: this.#guard,
      clock,
      onLine: terminal.appLine,
    }).catch((error: unknown) => {
      throw new CliError(`cannot start ${name}: ${textOf(error)}`, exitCodes.failure, { cause: error });
    });
  }

  /** Waits at most a minute; then the sidecar's log has said why, and the app may be able to go on without. */
  async #sidecarReady(): Promise<void> {
    const { clock, terminal } = this.#options;
    const late = new AbortController();
    const timer = clock.setTimeout(() => late.abort(), readyMs);
    try {
      await this.#api.healthy("outbound", AbortSignal.any([late.signal, this.#over.signal]));
    } catch (error) {
      if (!late.signal.aborted) throw error;
      terminal.warn(
        "the sidecar is not ready after 60 s, its log above says why; starting the app all the same",
      );
    } finally {
      timer.cancel();
    }
  }

  async #announceReady(): Promise<void> {
    const { plan, terminal, clock } = this.#options;
    const waiting = clock.setTimeout(() => terminal.warn(this.#whatIsMissing()), readyMs);
    try {
      await this.#api.healthy("outbound", this.#over.signal);
      await this.#attachNotes();
      if (this.#app !== undefined) await this.#api.healthy("all", this.#over.signal);
    } finally {
      waiting.cancel();
    }
    const logs = this.#app === undefined ? "The sidecar's logs" : "Both Weft and your app logs";
    terminal.success(`${terminal.bold("You're up and running!")} ${logs} will appear here.`);
    if (this.#app === undefined && plan.appPort > 0) {
      terminal.info(`Start your app yourself; the sidecar waits for it on port ${plan.appPort}.`);
    }
  }

  #whatIsMissing(): string {
    const { appPort } = this.#options.plan;
    const forApp =
      this.#app !== undefined && appPort > 0 ? `, or the app does not listen on port ${appPort}` : "";
    return `still not ready after 60 s: the sidecar cannot reach NATS${forApp}. Waiting on`;
  }

  /** Tools find the processes that belong together by these. */
  async #attachNotes(): Promise<void> {
    const { plan, terminal } = this.#options;
    const app =
      this.#app === undefined
        ? []
        : [
            ["appCommand", plan.command.join(" ")],
            ["appPID", String(this.#app.pid)],
          ];
    try {
      for (const [key = "", value = ""] of [["cliPID", String(process.pid)], ...app])
        await this.#api.note(key, value);
    } catch (error) {
      terminal.warn(`could not write down the process ids in the sidecar's metadata: ${textOf(error)}`);
    }
  }

  async #finish(ending: Ending): Promise<number> {
    const { terminal } = this.#options;
    if (ending.by === "user") terminal.info("terminated signal received: shutting down");
    if (ending.by === "failure") terminal.fail(textOf(ending.error));
    if (ending.by === "sidecar") await this.#mournSidecar(ending.end);
    const appClean = await this.#stopApp();
    const sidecarClean = await this.#stopSidecar(ending);
    switch (ending.by) {
      case "app":
        return ending.end.code;
      case "user":
        return appClean && sidecarClean ? exitCodes.ok : exitCodes.failure;
      case "sidecar":
        return ending.end.code === 0 && appClean ? exitCodes.ok : exitCodes.failure;
      case "failure":
        return exitCodes.failure;
    }
  }

  /** A sidecar that ends well was asked to, mostly by its app as the last thing it did: it may finish. */
  async #mournSidecar(end: ChildEnd): Promise<void> {
    const { terminal, clock } = this.#options;
    if (end.code === 0) {
      terminal.info("the sidecar was told to shut down and has ended");
      const stopWaiting = new AbortController();
      const grace = clock.sleep(appGraceMs, stopWaiting.signal).catch(() => {});
      await Promise.race([this.#app?.ended, grace]);
      stopWaiting.abort();
      return;
    }
    const words = this.#lastWords.slice(-shownLines).map((line) => `    ${line}`);
    const how = end.signal === undefined ? `with exit code ${end.code}` : `by ${end.signal}`;
    terminal.fail(`the sidecar ended by itself ${how}. Its last words:\n${words.join("\n") || "    (none)"}`);
  }

  async #stopApp(): Promise<boolean> {
    const app = this.#app;
    if (app === undefined) return true;
    const { terminal } = this.#options;
    const outcome = await app.stop(appGraceMs);
    if (outcome !== "clean") {
      terminal.fail(
        `the app ${outcome === "late" ? `did not end within ${appGraceMs / 1000} s and ` : ""}was killed`,
      );
      return false;
    }
    const { code, signal } = await app.ended;
    if (code === 0 || signal === "SIGTERM") terminal.success("Exited App successfully");
    else terminal.fail(`The App process exited with error code: ${signal ?? `exit status ${code}`}`);
    return true;
  }

  async #stopSidecar(ending: Ending): Promise<boolean> {
    const sidecar = this.#sidecar;
    if (sidecar === undefined) return true;
    const { terminal, plan } = this.#options;
    const outcome = await sidecar.stop(plan.sidecarGraceMs);
    const { code, signal } = await sidecar.ended;
    const clean = outcome === "clean" && code === 0;
    if (ending.by === "sidecar") return clean;
    if (clean) terminal.success("Exited Weft successfully");
    else terminal.fail(`the sidecar ended with ${signal ?? `exit code ${code}`}`);
    return clean;
  }

  #force(): void {
    this.#options.terminal.warn("second signal: killing what is left");
    this.#app?.force();
    this.#sidecar?.force();
  }
}
