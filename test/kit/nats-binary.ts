/** Which nats-server the tests run: one given by WEFT_TEST_NATS_SERVER, else what the mesh itself would find or fetch. */
import { existsSync } from "node:fs";

/** Path of a nats-server program new enough for Weft. */
export async function natsServerBinary(): Promise<string> {
  const given = process.env["WEFT_TEST_NATS_SERVER"];
  if (given === undefined || given === "") throw new Error("set WEFT_TEST_NATS_SERVER to a nats-server program");
  if (!existsSync(given)) throw new Error(`WEFT_TEST_NATS_SERVER names ${given}, which does not exist`);
  return given;
}
