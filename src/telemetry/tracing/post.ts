/** One POST of an exporter, on connections that are kept. */
import { Agent as HttpAgent, type ClientRequest, request as requestHttp } from "node:http";
import { Agent as HttpsAgent, request as requestHttps } from "node:https";

/** Of a collector's refusal, for the log. */
const shownBytes = 300;

export type Poster = {
  /** Resolves when the collector answered 2xx. Rejects with Error naming the address. */
  post(body: readonly Uint8Array[]): Promise<void>;
  close(): void;
};

/** `headers` go with every request; a collector that says nothing for `timeoutMs` has failed. */
export function createPoster(url: URL, headers: Readonly<Record<string, string>>, timeoutMs: number): Poster {
  const secure = url.protocol === "https:";
  const settings = { keepAlive: true, maxSockets: 1, maxFreeSockets: 1 };
  const agent = secure ? new HttpsAgent(settings) : new HttpAgent(settings);
  const failed = (why: string): Error => new Error(`${url.href}: ${why}`);
  return {
    post: (body) =>
      new Promise((resolve, reject) => {
        const options = {
          method: "POST",
          agent,
          headers: {
            ...headers,
            "Content-Length": String(body.reduce((sum, piece) => sum + piece.length, 0)),
          },
          // Of silence: a collector that answers slowly but does answer is waited for.
          timeout: timeoutMs,
        };
        const call = (secure ? requestHttps : requestHttp)(url, options, (answer) => {
          const status = answer.statusCode ?? 0;
          let text = "";
          answer.setEncoding("utf8");
          answer.on("data", (chunk: string) => {
            if (text.length < shownBytes) text += chunk;
          });
          answer.once("error", (error) => reject(failed(error.message)));
          answer.once("end", () => {
            if (status >= 200 && status <= 299) afterBody(call, resolve);
            else reject(failed(`status ${status} ${text.slice(0, shownBytes)}`));
          });
        });
        call.once("timeout", () => call.destroy(new Error(`no answer within ${timeoutMs} ms`)));
        call.once("error", (error) => reject(failed(textOf(error))));
        for (const piece of body) call.write(piece);
        call.end();
      }),
    close: () => agent.destroy(),
  };
}

/** node has no message of its own when several addresses of a host were tried. */
function textOf(error: NodeJS.ErrnoException): string {
  return error.message === "" ? (error.code ?? "failed") : error.message;
}

/** A collector may answer before it has taken all; until then the body's memory is in use. */
function afterBody(call: ClientRequest, done: () => void): void {
  if (call.writableFinished) done();
  else call.once("finish", done);
}
