import { expect, it } from "vitest";
import { countCalls } from "./calls.ts";

class Base {
  #secret = "s";
  readonly limit = 3;
  inherited(): Promise<string> {
    return Promise.resolve(this.#secret);
  }
}

class Port extends Base {
  readonly #calls: PromiseWithResolvers<string>[] = [];
  closed = false;
  optional?: () => Promise<void>;
  call(): Promise<string> {
    const call = Promise.withResolvers<string>();
    this.#calls.push(call);
    return call.promise;
  }
  end(index: number, error?: Error): void {
    if (error === undefined) this.#calls[index]!.resolve(`call ${index}`);
    else this.#calls[index]!.reject(error);
  }
  async close(): Promise<void> {
    this.closed = true;
  }
}

it("gives the port back as it is", async () => {
  const inner = new Port();
  const { port } = countCalls(inner);
  expect(port.limit).toBe(3);
  expect(port.optional).toBeUndefined();
  expect(await port.inherited()).toBe("s");
  const call = port.call();
  port.end(0);
  expect(await call).toBe("call 0");
  await port.close();
  expect([inner.closed, port.closed]).toEqual([true, true]);
});

it("is idle when the last call has ended, well or not", async () => {
  const { port, idle } = countCalls(new Port());
  await idle();
  const calls = [port.call(), port.call()];
  let isIdle = false;
  const waiting = idle().then(() => (isIdle = true));
  port.end(0);
  await calls[0];
  expect(isIdle).toBe(false);
  port.end(1, new Error("no"));
  await expect(calls[1]).rejects.toThrow("no");
  await waiting;
});

it("goes over to another port, but is closed itself", async () => {
  const [first, second] = [new Port(), new Port()];
  const { port, redirect } = countCalls(first);
  redirect(second);
  const call = port.call();
  second.end(0);
  expect(await call).toBe("call 0");
  await port.close();
  expect([first.closed, second.closed]).toEqual([true, false]);
  redirect({} as Port);
  expect(() => port.call()).toThrow("the component was replaced by one without call");
});
