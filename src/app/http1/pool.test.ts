import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { describe, expect, it } from "vitest";
import { BodyQueue, type BodyStream, collectBody } from "../../../mesh/index.ts";
import { manualClock } from "../../../test/contract/manual-clock.ts";
import { client, maxHeaderBytes, rawApp } from "../../../test/kit/both-clients.ts";
import { eventually } from "../../../test/kit/eventually.ts";

const ok = "HTTP/1.1 200 OK\r\n";
const fine = `${ok}Content-Length: 2\r\n\r\nhi`;
const never = new AbortController().signal;
type Http = ReturnType<typeof client>;

const send = (http: Http, verb: string, body?: Uint8Array, signal = never) =>
  http.http({ verb, path: "/", headers: [], body }, signal);
const invoke = (http: Http, verb: string, body: Uint8Array | BodyStream = new Uint8Array(), signal = never) =>
  http.invoke({ verb, path: "/", query: "", headers: [], body }, signal);
const answering = (text: string) => (socket: Socket) =>
  void socket.on("data", () => socket.write(text, "latin1"));
const turn = () => new Promise((resolve) => setImmediate(resolve));
const closed = (socket: Socket) => eventually(() => socket.closed);

/** Writes the text again and again, as fast as the client reads. */
function repeat(socket: Socket, text: string): void {
  const more = (): void => {
    while (socket.writable && socket.write(text));
  };
  socket.on("drain", more);
  more();
}

describe("an app that never stops", () => {
  it.each([
    ["headers", ok, "X: y\r\n".repeat(100), "Headers Overflow Error"],
    ["one header", `${ok}X: `, "y".repeat(1000), "Headers Overflow Error"],
    ["a reason", "HTTP/1.1 200 ", "y".repeat(1000), "Headers Overflow Error"],
    [
      "trailers",
      `${ok}Transfer-Encoding: chunked\r\n\r\n0\r\n`,
      "X: y\r\n".repeat(100),
      "Headers Overflow Error",
    ],
    ["an extension", `${ok}Transfer-Encoding: chunked\r\n\r\n2;`, "y".repeat(1000), "Headers Overflow Error"],
    ["interim answers", "", "HTTP/1.1 103 H\r\nLink: x\r\n\r\n".repeat(10), "Too many interim answers"],
    ["a body for a callback", `${ok}\r\n`, "y".repeat(65536), "the app's answer is above 67108864 bytes"],
    ["noise", "", "\0\x01\x02".repeat(100), "Expected HTTP/"],
  ])("%s: the call fails, and the connection is closed", async (_name, first, then, reason) => {
    await using app = await rawApp((socket) => {
      socket.once("data", () => {
        socket.write(first);
        repeat(socket, then);
      });
    });
    await using http = client(app.port);
    await expect(send(http, "POST")).rejects.toThrow(reason);
    await eventually(() => app.connections.size === 0);
  });
});

describe("connections", () => {
  it("as many as there are calls at once; then one is used again and again", async () => {
    const seen: Socket[] = [];
    const waiting: (() => void)[] = [];
    await using app = await rawApp((socket) => {
      seen.push(socket);
      socket.on("data", () => void waiting.push(() => socket.write(fine)));
    });
    await using http = client(app.port);
    const calls = Array.from({ length: 20 }, () => send(http, "POST", Buffer.from("x")));
    await eventually(() => waiting.length === 20);
    for (const answer of waiting) answer();
    for (const { body } of await Promise.all(calls)) expect(body.toString()).toBe("hi");
    await turn();
    waiting.push = (answer: () => void) => (answer(), 0);
    for (let i = 0; i < 50; i++) await send(http, "POST");
    expect(seen).toHaveLength(20);
  });

  it.each([
    ["60 s", fine, 60_000],
    ["what the app says less two", `${ok}Keep-Alive: timeout=5, max=9\r\n${fine.slice(ok.length)}`, 3_000],
  ])("rest for %s", async (_name, answer, idleMs) => {
    const clock = manualClock();
    await using app = await rawApp(answering(answer));
    await using http = client(app.port, "own", clock);
    await send(http, "POST");
    const [socket] = app.connections;
    clock.advance(idleMs - 1);
    await turn();
    await send(http, "POST");
    expect(app.connections.size).toBe(1);
    clock.advance(idleMs - 1);
    await turn();
    await send(http, "POST");
    await turn();
    expect([...app.connections]).toEqual([socket]);
    clock.advance(idleMs);
    await closed(socket!);
  });

  it("that do not come about in 10 s fail their calls", async () => {
    // The kernel lets two connections wait for a process that takes none, and leaves the next without an answer.
    const listen = `const s = require("net").createServer().listen(0, "127.0.0.1", 1, () => {
      require("fs").writeSync(1, String(s.address().port));
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 60_000);
    });`;
    const deaf = spawn(process.execPath, ["-e", listen], { stdio: ["ignore", "pipe", "inherit"] });
    const waiting: Socket[] = [];
    try {
      const port = Number(((await once(deaf.stdout, "data")) as [Buffer])[0]);
      for (let i = 0; i < 2; i++) {
        waiting.push(connect(port, "127.0.0.1"));
        await once(waiting[i]!, "connect");
      }
      const clock = manualClock();
      await using http = client(port, "own", clock);
      let failure: string | undefined;
      const call = send(http, "POST").catch((error: Error) => (failure = error.message));
      await turn();
      clock.advance(9_999);
      await turn();
      expect(failure).toBeUndefined();
      clock.advance(1);
      await call;
      expect(failure).toBe(`Post "http://127.0.0.1:${port}/": dial tcp 127.0.0.1:${port}: i/o timeout`);
    } finally {
      for (const socket of waiting) socket.destroy();
      deaf.kill("SIGKILL");
    }
  });

  it("are left when the app closes them, and when it says what nobody asked for", async () => {
    for (const leave of ["end", "words", "reset"]) {
      const seen: Socket[] = [];
      await using app = await rawApp((socket) => {
        seen.push(socket);
        answering(fine.replace("hi", `${seen.length}.`))(socket);
      });
      await using http = client(app.port);
      expect((await send(http, "POST")).body.toString()).toBe("1.");
      if (leave === "end") seen[0]!.end();
      else if (leave === "words") seen[0]!.write(fine);
      else seen[0]!.resetAndDestroy();
      await closed(seen[0]!);
      expect((await send(http, "POST")).body.toString()).toBe("2.");
    }
  });

  it("that were closed while the event loop stood still serve no call", async () => {
    const seen: Socket[] = [];
    await using app = await rawApp((socket) => {
      seen.push(socket);
      answering(fine)(socket);
    });
    await using http = client(app.port);
    for (let i = 0; i < 20; i++) {
      await send(http, "POST");
      await turn();
      // The end of the connection is on its way when the next call begins, before anything has been read.
      seen.at(-1)!.resetAndDestroy();
      await send(http, "POST");
    }
  });

  it("that broke before the answer began: GET is repeated, POST fails", async () => {
    for (const [how, reason] of [
      ["end", "EOF"],
      ["reset", "read: connection reset by peer"],
    ]) {
      let requests = 0;
      await using app = await rawApp((socket) => {
        socket.on("data", () => {
          if (++requests % 2 === 1) socket.write(fine);
          else if (how === "end") socket.end();
          else socket.resetAndDestroy();
        });
      });
      await using http = client(app.port);
      await send(http, "GET");
      expect((await send(http, "GET")).status).toBe(200);
      expect(requests).toBe(3);
      await expect(send(http, "POST")).rejects.toThrow(`Post "http://127.0.0.1:${app.port}/": ${reason}`);
      expect(requests).toBe(4);
    }
  });

  it("that are refused are told in the words of Go", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as { port: number };
    server.close();
    await once(server, "close");
    await using http = client(port);
    await expect(send(http, "GET")).rejects.toThrow(
      `Get "http://127.0.0.1:${port}/": dial tcp 127.0.0.1:${port}: connect: connection refused`,
    );
  });
});

describe("an end from this side", () => {
  it("a signal ends the call with its reason, and closes the connection", async () => {
    await using app = await rawApp(
      (socket) => void socket.on("data", () => socket.write(`${ok}A: b\r\n\r\nhi`)),
    );
    await using http = client(app.port);
    const aborted = new AbortController();
    aborted.abort(new Error("before"));
    await expect(send(http, "POST", undefined, aborted.signal)).rejects.toThrow("before");
    const soon = new AbortController();
    const waiting = send(http, "POST", undefined, soon.signal);
    soon.abort(new Error("soon"));
    await expect(waiting).rejects.toThrow("soon");
    expect(app.connections.size).toBe(0);
    const late = new AbortController();
    const { body } = await invoke(http, "POST", undefined, late.signal);
    late.abort(new Error("late"));
    await expect(collectBody(body, 1000)).rejects.toThrow("late");
    await eventually(() => app.connections.size === 0);
  });

  it.each(["own", "undici"] as const)(
    "that was closed before its first call takes none (%s)",
    async (which) => {
      const http = client(1, which);
      await http.close();
      await expect(send(http, "POST")).rejects.toThrow(/The client is (closed|destroyed)/);
    },
  );

  it("close ends all calls; retire lets them end first", async () => {
    let answer = (): void => {};
    await using app = await rawApp((socket) => {
      socket.on("data", () => (answer = () => socket.write(fine)));
    });
    await using closing = client(app.port);
    const broken = send(closing, "POST");
    await eventually(() => app.connections.size === 1);
    const ended = broken.catch((error: Error) => error.message);
    await closing.close();
    expect(await ended).toContain("The client is destroyed");
    await expect(send(closing, "POST")).rejects.toThrow("The client is destroyed");
    answer = () => {};

    await using retiring = client(app.port);
    await eventually(() => app.connections.size === 0);
    const last = send(retiring, "POST");
    const retired = retiring.retire();
    await expect(send(retiring, "POST")).rejects.toThrow("The client is closed");
    await eventually(() => app.connections.size === 1);
    await eventually(() => (answer(), app.connections.size === 0));
    expect((await last).status).toBe(200);
    await retired;
  });
});

describe("streams", () => {
  it("an answer of 64 MB that is not read holds the app back, and is whole when it is", async () => {
    const total = 64 * 1024 * 1024;
    const piece = Buffer.from(Array.from({ length: 65_536 }, (_, i) => i % 251));
    let written = 0;
    await using app = await rawApp((socket) => {
      socket.once("data", () => {
        socket.write(`${ok}Content-Length: ${total}\r\n\r\n`);
        const more = (): void => {
          while (written < total) {
            written += piece.length;
            if (!socket.write(piece)) return;
          }
        };
        socket.on("drain", more);
        more();
      });
    });
    await using http = client(app.port);
    const { body } = await invoke(http, "GET");
    const queue = body as BodyQueue;
    let before = -1;
    await eventually(() => before === (before = written), { everyMs: 100 });
    expect(queue.bufferedBytes).toBeLessThan(512 * 1024);
    expect(written).toBeLessThan(total / 2);
    let read = 0;
    for await (const got of queue) {
      for (let i = 0; i < got.length; i += 4099)
        if (got[i] !== ((read + i) % 65_536) % 251) throw new Error(`wrong byte at ${read + i}`);
      read += got.length;
    }
    expect(read).toBe(total);
    // The connection reads again.
    expect(app.connections.size).toBe(1);
  });

  it("an answer whose last piece is held back leaves a connection that works", async () => {
    const chunk = (bytes: number): string => `${bytes.toString(16)}\r\n${"x".repeat(bytes)}\r\n`;
    await using app = await rawApp((socket) => {
      socket.once("data", () => {
        socket.write(`${ok}Transfer-Encoding: chunked\r\n\r\n${chunk(100_000)}`);
        answering(fine)(socket);
      });
    });
    await using http = client(app.port);
    const { body } = await invoke(http, "GET");
    const queue = body as BodyQueue;
    await eventually(() => queue.bufferedBytes === 100_000);
    const [socket] = app.connections;
    socket!.write(`${chunk(40_000)}0\r\n\r\n`);
    await eventually(() => queue.ended);
    await turn();
    expect((await send(http, "POST")).body.toString()).toBe("hi");
    expect([...app.connections]).toEqual([socket]);
    expect(await collectBody(body, 200_000)).toHaveLength(140_000);
  });

  it("a body that breaks off fails its reader", async () => {
    for (const [head, reason] of [
      ["Content-Length: 1000000\r\n\r\n", "EOF"],
      ["Transfer-Encoding: chunked\r\n\r\n5\r\n", "EOF"],
      ["Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n", "(Invalid EOF state)"],
    ]) {
      await using app = await rawApp(
        (socket) => void socket.once("data", () => socket.write(`${ok}${head}hi`)),
      );
      await using http = client(app.port);
      const { body } = await invoke(http, "GET");
      for (const socket of app.connections) socket.end();
      await expect(collectBody(body, 2_000_000)).rejects.toThrow(reason);
    }
  });

  it("an app that reads nothing holds the request's writer back; its answer ends the request", async () => {
    let socket!: Socket;
    await using app = await rawApp((opened) => void (socket = opened.pause()));
    await using http = client(app.port);
    let taken = 0;
    let reason = "";
    const body = new BodyQueue({
      onTaken: (bytes) => {
        taken += bytes;
        if (taken < 64 * 1024 * 1024) body.push(Buffer.alloc(65_536));
      },
      onCancel: (error) => (reason = error.message),
    });
    body.push(Buffer.from("first"));
    const answer = invoke(http, "POST", body);
    let before = -1;
    await eventually(() => taken > 65_536 && before === (before = taken), { everyMs: 100 });
    expect(taken).toBeLessThan(32 * 1024 * 1024);
    socket.write(fine);
    expect((await answer).status).toBe(200);
    expect(reason).toBe("the app answered without reading the rest of the body");
    socket.resume();
    await closed(socket);
  });

  it.each([[["ab", "cd", "e"]], [["ab"]]])("a body of 4 that is %j fails the call", async (pieces) => {
    await using app = await rawApp((socket) => void socket.resume());
    await using http = client(app.port);
    const body = new BodyQueue({}, 4);
    for (const piece of pieces) body.push(Buffer.from(piece));
    body.end();
    await expect(invoke(http, "POST", body)).rejects.toThrow(
      "Request body length does not match content-length header",
    );
    await eventually(() => app.connections.size === 0);
  });

  it("a request whose body fails is broken off with its error", async () => {
    await using app = await rawApp((socket) => void socket.resume());
    await using http = client(app.port);
    const body = new BodyQueue();
    body.push(Buffer.from("x".repeat(maxHeaderBytes)));
    const answer = invoke(http, "POST", body);
    const failed = answer.catch((error: Error) => error.message);
    await eventually(() => app.connections.size === 1);
    body.fail(new Error("the caller is gone"));
    expect(await failed).toContain("the caller is gone");
    await eventually(() => app.connections.size === 0);
  });
});
