/** The part of autocannon that the bench uses; the package brings no types. */
declare module "autocannon" {
  type Options = {
    url: string;
    method: string;
    connections: number;
    duration: number;
    body?: string;
    headers?: Readonly<Record<string, string>>;
    /** Asked in turn by each connection; `setupRequest` may change one before it is sent. */
    requests?: readonly { setupRequest<R extends object>(request: R): R }[];
  };
  type Result = {
    duration: number;
    non2xx: number;
    errors: number;
    requests: { total: number };
    latency: { p50: number; p99: number };
  };
  export default function autocannon(options: Options): Promise<Result>;
}
