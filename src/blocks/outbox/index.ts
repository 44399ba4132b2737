/**
 * The outbox block: events that are published exactly when the state transaction they belong to was committed.
 * It has no API of its own; see README.md for the way of an event through the files of this folder.
 */
export { createOutboxBlock as outboxBlock } from "./outbox.ts";
