/** The W3C `baggage` header: only checked, because it goes on as it came. */
import { isToken } from "../../lib/http-field.ts";

/** Limits that receivers of baggage have. */
const maxBytes = 8192;
const maxMembers = 180;

const value = /^[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*$/;
const brokenEscape = /%(?![0-9A-Fa-f]{2})/;

/** What is wrong with it; undefined when it is valid. */
export function baggageFault(text: string): string | undefined {
  if (text.length > maxBytes) return `it is above ${maxBytes} bytes`;
  const members = text.split(",");
  if (members.length > maxMembers) return `it has more than ${maxMembers} members`;
  for (const member of members) {
    const [pair = "", ...properties] = member.split(";");
    if (!validPair(pair, true)) return `invalid member ${JSON.stringify(member.trim())}`;
    for (const property of properties) {
      if (!validPair(property, false)) return `invalid property ${JSON.stringify(property.trim())}`;
    }
  }
  return undefined;
}

function validPair(text: string, needsValue: boolean): boolean {
  const equals = text.indexOf("=");
  if (equals < 0) return !needsValue && isToken(text.trim());
  const given = text.slice(equals + 1).trim();
  return isToken(text.slice(0, equals).trim()) && value.test(given) && !brokenEscape.test(given);
}
