import { beforeEach, describe, expect, it, vi } from "vitest";
import { manualClock } from "../../test/contract/manual-clock.ts";
import { silentLog } from "../../test/contract/silent-log.ts";
import type { ComponentResource } from "../config/kinds/component.ts";
import { noMetrics } from "../telemetry/metrics.ts";
import { openComponents, type ComponentsInit } from "./open.ts";

type Port = { close(): Promise<void> };

/** How the one component type there is opens. */
const hoisted = vi.hoisted(() => ({ open: (): Promise<unknown> => Promise.reject(new Error("unset")) }));

vi.mock("./index.gen.ts", () => ({
  componentEntries: [
    {
      type: "state.fake",
      load: () =>
        Promise.resolve({
          type: "state.fake",
          versions: ["v1"],
          metadataSchema: {},
          capabilities: ["ETAG"],
          open: () => hoisted.open(),
        }),
    },
  ],
}));

const clock = manualClock();
let warned: string[];
beforeEach(() => {
  warned = [];
  hoisted.open = () => Promise.resolve({ close: () => Promise.resolve() });
});

function component(change: Partial<ComponentResource> = {}): ComponentResource {
  return {
    kind: "Component",
    name: "store",
    namespace: undefined,
    type: "state.fake",
    version: "v1",
    metadata: [],
    initTimeoutMs: 1000,
    ignoreErrors: false,
    scopes: [],
    secretStore: undefined,
    origin: { file: "store.yaml", line: 3, column: 1 },
    ...change,
  };
}

function open(
  resources: readonly ComponentResource[],
  deny?: readonly string[],
): ReturnType<typeof openComponents> {
  const log: typeof silentLog = { ...silentLog, warn: (text) => void warned.push(text), scope: () => log };
  const options = { appId: "app", namespace: "default" } as ComponentsInit["options"];
  const mesh = undefined as unknown as ComponentsInit["mesh"];
  const init = { options, resources, mesh, clock, log, metrics: noMetrics, env: {} };
  return openComponents({ ...init, ...(deny === undefined ? {} : { deny }) });
}

const names = (opened: Awaited<ReturnType<typeof openComponents>>): string[] =>
  opened.list().map(({ resource }) => resource.name);

describe("a component that opens after its init timeout", () => {
  /** Starts, lets the time pass while `open` works, and gives the end of the start and of `open` to the test. */
  async function overrun(): Promise<PromiseWithResolvers<Port>> {
    const opening = Promise.withResolvers<Port>();
    const asked = Promise.withResolvers<void>();
    hoisted.open = () => {
      asked.resolve();
      return opening.promise;
    };
    const outcome = open([component()]).catch((error: unknown) => String(error));
    await asked.promise;
    clock.advance(1000);
    expect(await outcome).toContain("init timeout for component store (state.fake/v1) after 1000 ms");
    return opening;
  }

  it("is closed", async () => {
    const opening = await overrun();
    const closed = Promise.withResolvers<void>();
    opening.resolve({ close: async () => closed.resolve() });
    await closed.promise;
  });

  it("is logged when it cannot be closed", async () => {
    const opening = await overrun();
    opening.resolve({ close: () => Promise.reject(new Error("stuck")) });
    await vi.waitFor(() =>
      expect(warned).toEqual(["store (state.fake/v1), which opened too late, cannot be closed: stuck"]),
    );
  });

  it("may also fail late", async () => {
    const opening = await overrun();
    opening.reject(new Error("aborted"));
    await vi.waitFor(() => expect(warned).toEqual([]));
  });
});

it("a component that throws at once fails the start and leaves no timer", async () => {
  hoisted.open = () => {
    throw new Error("no");
  };
  await expect(open([component()])).rejects.toThrow("no (store.yaml:3)");
});

describe("components.deny of the Configuration", () => {
  it.each([
    [undefined, ["a", "b"], []],
    [[], ["a", "b"], []],
    [["state.other"], ["a"], ["b"]],
    [["state.fake/v1"], [], ["a", "b"]],
  ])("%j leaves %j", async (deny, left, denied) => {
    const opened = await open([component({ name: "a" }), component({ name: "b", version: "" })], deny);
    expect(names(opened)).toEqual(left);
    expect(warned.map((line) => / component (\w+) /.exec(line)?.[1])).toEqual(denied);
  });

  it("is named in the warning", async () => {
    await open([component(), component({ version: "" })], ["state.fake"]);
    const forbidden = "is not loaded: components.deny of the Configuration forbids";
    expect(warned).toEqual([
      `store.yaml:3: component store (state.fake/v1) ${forbidden} it`,
      `store.yaml:3: component store (state.fake) ${forbidden} components without a version`,
    ]);
  });
});
