/** What may stand in a header line (RFC 9110, 5): node refuses the rest too. */

const token = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const notInValue = /[^\t\x20-\x7e\x80-\xff]/;

/** True for the name of a header, and for a verb. */
export function isToken(text: string): boolean {
  return token.test(text);
}

/** True for the value of a header as one character a byte. */
export function isFieldValue(text: string): boolean {
  return !notInValue.test(text);
}
