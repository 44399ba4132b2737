/**
 * Values as Go prints them where its programs ask for text (`%s`) and get something else. Clients of secret stores can
 * see these forms.
 */

/** JSON data under Go's `%s`: a string as it is, else `%!s(bool=true)`, `%!s(float64=3)`, `%!s(<nil>)`. */
export function goTextVerb(value: string | number | boolean | null): string {
  if (typeof value === "string") return value;
  if (value === null) return "%!s(<nil>)";
  return typeof value === "boolean" ? `%!s(bool=${value})` : `%!s(float64=${goFloat(value)})`;
}

/** Shortest digits; with an exponent of at least two digits below 1e-4 and from 1e6 on. */
export function goFloat(value: number): string {
  const [digits = "0", exponentText = "0"] = value.toExponential().split("e");
  const exponent = Number(exponentText);
  if (exponent >= -4 && exponent < 6) return Object.is(value, -0) ? "-0" : String(value);
  const sign = exponent < 0 ? "-" : "+";
  return `${digits}e${sign}${String(Math.abs(exponent)).padStart(2, "0")}`;
}
