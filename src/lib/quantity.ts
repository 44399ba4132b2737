/**
 * Sizes written as Kubernetes quantities (`4Mi`, `64Ki`, `1G`, `1.5Mi`, `1e6`), as --max-body-size takes them.
 */

const SHAPE = /^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$/;
const SHAPE_ERROR =
  "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
const NUMBER = /^[+-]?[0-9]*\.?[0-9]*$/;
const EXPONENT = /^[eE]([-+]?[0-9]+)$/;
const SUFFIXES: ReadonlyMap<string, number> = new Map([
  ["n", 1e-9],
  ["u", 1e-6],
  ["m", 1e-3],
  ["", 1],
  ["k", 1e3],
  ["M", 1e6],
  ["G", 1e9],
  ["T", 1e12],
  ["P", 1e15],
  ["E", 1e18],
  ["Ki", 2 ** 10],
  ["Mi", 2 ** 20],
  ["Gi", 2 ** 30],
  ["Ti", 2 ** 40],
  ["Pi", 2 ** 50],
  ["Ei", 2 ** 60],
]);

/** A size text that is not a quantity. The message is the one Kubernetes' parser gives. */
export class QuantityError extends Error {
  override readonly name = "QuantityError";
}

/**
 * Parses a quantity into whole bytes, rounded away from zero (`1.5` is 2) and cut at 2^53 - 1.
 * @throws {QuantityError} when the text is not a quantity or its suffix is unknown.
 */
export function parseQuantityBytes(text: string): number {
  const shape = SHAPE.exec(text);
  const digits = shape?.[1];
  const suffix = shape?.[2] ?? "";
  if (digits === undefined || !NUMBER.test(digits)) throw new QuantityError(SHAPE_ERROR);
  const exponent = EXPONENT.exec(suffix)?.[1];
  const scale = exponent === undefined ? SUFFIXES.get(suffix) : 10 ** Number(exponent);
  if (scale === undefined) throw new QuantityError("unable to parse quantity's suffix");
  const value = (/[0-9]/.test(digits) ? Number(digits) : 0) * scale;
  return Math.sign(value) * Math.min(Math.ceil(Math.abs(value)), Number.MAX_SAFE_INTEGER);
}
