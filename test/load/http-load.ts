/** One closed-loop HTTP load by autocannon: so many connections, each sending its next request after the answer. */
import autocannon from "autocannon";

export type HttpJob = {
  readonly url: string;
  /** In place of `url`: asked in turn. */
  readonly urls?: readonly string[];
  readonly method: "GET" | "POST";
  readonly body?: string;
  readonly headers?: Readonly<Record<string, string>>;
};

export type LoadResult = {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly requests: number;
};

/** Rejects when an answer was not 2xx or a connection failed: a rate of errors is no result. */
export async function httpLoad(job: HttpJob, connections: number, seconds: number): Promise<LoadResult> {
  const result = await autocannon({
    url: job.url,
    method: job.method,
    connections,
    duration: seconds,
    ...(job.body === undefined ? {} : { body: job.body }),
    ...(job.headers === undefined ? {} : { headers: job.headers }),
    ...(job.urls === undefined ? {} : { requests: [inTurn(job.urls)] }),
  });
  if (result.non2xx > 0 || result.errors > 0) {
    throw new Error(`${job.url}: ${result.non2xx} answers not 2xx, ${result.errors} errors`);
  }
  return {
    perSecond: result.requests.total / result.duration,
    p50Ms: result.latency.p50,
    p99Ms: result.latency.p99,
    requests: result.requests.total,
  };
}

/** One request that is another one each time: a list of them would cost the load more than the requests themselves. */
function inTurn(urls: readonly string[]): { setupRequest<R extends object>(request: R): R } {
  const paths = urls.map((url) => new URL(url).pathname);
  let next = 0;
  return { setupRequest: (request) => ({ ...request, path: paths[next++ % paths.length] }) };
}
