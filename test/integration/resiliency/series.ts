/** Reads the metrics page of a sidecar as a user's Prometheus does, for the families of resiliency. */
import type { Sidecar } from "../../kit/index.ts";

export type Labels = Readonly<Record<string, string>>;

export type Series = { readonly labels: Labels; readonly value: number };

/** All series of `dapr_<name>`. */
export async function seriesOf(sidecar: Sidecar, name: string): Promise<Series[]> {
  const page = await (await fetch(`http://127.0.0.1:${sidecar.metricsPort}/metrics`)).text();
  const lines = page.split("\n").filter((line) => line.startsWith(`dapr_${name}{`));
  return lines.map((line) => {
    const labels = [...line.matchAll(/(\w+)="([^"]*)"/g)].map(([, key, value]) => [key!, value!] as const);
    return { labels: Object.fromEntries(labels), value: Number(line.slice(line.lastIndexOf(" "))) };
  });
}

/** Value of the series with (at least) these labels; 0 when there is none. */
export async function valueOf(sidecar: Sidecar, name: string, wanted: Labels): Promise<number> {
  const all = await seriesOf(sidecar, name);
  return (
    all.find(({ labels }) => Object.entries(wanted).every(([key, value]) => labels[key] === value))?.value ??
    0
  );
}

/** The state that a circuit breaker of a target shows. */
export async function breakerState(sidecar: Sidecar, target: string): Promise<string | undefined> {
  const all = await seriesOf(sidecar, "resiliency_cb_state");
  return all.find(({ labels, value }) => labels["target"] === target && value === 1)?.labels["status"];
}
