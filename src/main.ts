/** Where weftd begins: signals are heard before the rest is loaded, which takes most of the start. */
import { Orders } from "./orders.ts";
import { nameProcess } from "./process-name.ts";

const orders = new Orders();
nameProcess(process.argv0);
void import("./weftd.ts")
  .then(({ weftd }) => weftd(process.argv.slice(2), process.env, orders))
  .then((exitCode) => process.exit(exitCode));
