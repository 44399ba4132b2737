/** The error of a write whose ETag is not the current one, in words that name the key. */
import { EtagMismatch } from "../../../blocks/state/port.ts";

const shownChars = 100;

/** `key` as stored; the user's part of it is shown. */
export function changedMeanwhile(key: string): EtagMismatch {
  return new EtagMismatch(`key '${userKey(key)}' was changed or deleted since that ETag was read`);
}

/** A create that found the key. */
export function existsAlready(key: string): EtagMismatch {
  return new EtagMismatch(`key '${userKey(key)}' exists`);
}

function userKey(key: string): string {
  const at = key.indexOf("||");
  return (at < 0 ? key : key.slice(at + 2)).slice(0, shownChars);
}
