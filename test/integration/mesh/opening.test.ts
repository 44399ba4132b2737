// What a caller can learn and ask of the way to an instance: that a streamed request has arrived, long before its
// answer, and that nobody but a sidecar shall have it.
import { afterAll, beforeAll, expect, it } from "vitest";
import { BodyQueue, type MeshResponse } from "../../../mesh/index.ts";
import { type Lab, codeOf, request, startLab, to } from "./lab.ts";

let lab: Lab;
beforeAll(async () => {
  lab = await startLab();
});
afterAll(() => lab[Symbol.asyncDispose]());

it("tells when an instance has a streamed request; its answer may be long in coming", async () => {
  const [caller, callee] = [await lab.join("c"), await lab.join("late")];
  const answer = Promise.withResolvers<MeshResponse>();
  await callee.serve(() => answer.promise);
  const accepted = Promise.withResolvers<void>();
  const call = caller.call(request({ body: new BodyQueue() }), {
    ...to("late"),
    onAccepted: accepted.resolve,
  });
  await accepted.promise;
  answer.resolve({ status: 201, headers: [], body: new Uint8Array(0) });
  expect((await call).status).toBe(201);
});

it("does not wait for the end of a body that nobody shall have in the plain form", async () => {
  const caller = await lab.join("c");
  let accepted = 0;
  const options = { ...to("nobody"), sidecarsOnly: true, onAccepted: () => accepted++ };
  // The body never ends: a caller that would try the plain form had to collect it first.
  expect(await codeOf(caller.call(request({ body: new BodyQueue() }), options))).toBe("no-responders");
  expect(accepted).toBe(0);
});
