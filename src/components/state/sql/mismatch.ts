/** The error of a write whose ETag is not the current one, in words that name the key. */
import { EtagInvalid, EtagMismatch, aboutKey } from "../../../blocks/state/port.ts";

const shownChars = 100;

/** `key` as stored; the user's part of it is shown. */
export function changedMeanwhile(key: string): EtagMismatch {
  return mismatch(key, `key '${userKey(key)}' was changed or deleted since that ETag was read`);
}

/** A create that found the key. */
export function existsAlready(key: string): EtagMismatch {
  return mismatch(key, `key '${userKey(key)}' exists`);
}

/** Any other reason. */
export function mismatch(key: string, why: string): EtagMismatch {
  return aboutKey(new EtagMismatch(why), key) as EtagMismatch;
}

/** An ETag that is none of a store whose ETags are numbers. */
export function noNumber(key: string, etag: string): EtagInvalid {
  const error = new EtagInvalid(`'${etag}' is not a number; send the ETag exactly as it was read`);
  return aboutKey(error, key) as EtagInvalid;
}

function userKey(key: string): string {
  const at = key.indexOf("||");
  return (at < 0 ? key : key.slice(at + 2)).slice(0, shownChars);
}
