/**
 * Guesses the content type of bytes as Go's HTTP server does for a handler that names none: by the rules of the WHATWG
 * MIME sniffing standard, at most 512 bytes. One table, tried in order; text and unknown bytes come last.
 */

/** Bytes that are looked at. */
const looked = 512;

/** A pattern at the start of the body; `?` in it stands for any byte. */
type Signature = { readonly pattern: string; readonly type: string };

const markup = "text/html; charset=utf-8";
const utf8 = "text/plain; charset=utf-8";

/** Tags that open a page, in upper case; one must be followed by a space or `>`. */
const tags = [
  "<!DOCTYPE HTML",
  "<HTML",
  "<HEAD",
  "<SCRIPT",
  "<IFRAME",
  "<H1",
  "<DIV",
  "<FONT",
  "<TABLE",
  "<A",
  "<STYLE",
  "<TITLE",
  "<B",
  "<BODY",
  "<BR",
  "<P",
  "<!--",
];

const signatures: readonly Signature[] = [
  { pattern: "%PDF-", type: "application/pdf" },
  { pattern: "%!PS-Adobe-", type: "application/postscript" },
  { pattern: "\xFE\xFF??", type: "text/plain; charset=utf-16be" },
  { pattern: "\xFF\xFE??", type: "text/plain; charset=utf-16le" },
  { pattern: "\xEF\xBB\xBF?", type: utf8 },
  { pattern: "\x00\x00\x01\x00", type: "image/x-icon" },
  { pattern: "\x00\x00\x02\x00", type: "image/x-icon" },
  { pattern: "BM", type: "image/bmp" },
  { pattern: "GIF87a", type: "image/gif" },
  { pattern: "GIF89a", type: "image/gif" },
  { pattern: "RIFF????WEBPVP", type: "image/webp" },
  { pattern: "\x89PNG\r\n\x1A\n", type: "image/png" },
  { pattern: "\xFF\xD8\xFF", type: "image/jpeg" },
  { pattern: "FORM????AIFF", type: "audio/aiff" },
  { pattern: "ID3", type: "audio/mpeg" },
  { pattern: "OggS\x00", type: "application/ogg" },
  { pattern: "MThd\x00\x00\x00\x06", type: "audio/midi" },
  { pattern: "RIFF????AVI ", type: "video/avi" },
  { pattern: "RIFF????WAVE", type: "audio/wave" },
  { pattern: "\x1A\x45\xDF\xA3", type: "video/webm" },
  { pattern: `${"?".repeat(34)}LP`, type: "application/vnd.ms-fontobject" },
  { pattern: "\x00\x01\x00\x00", type: "font/ttf" },
  { pattern: "OTTO", type: "font/otf" },
  { pattern: "ttcf", type: "font/collection" },
  { pattern: "wOFF", type: "font/woff" },
  { pattern: "wOF2", type: "font/woff2" },
  { pattern: "\x1F\x8B\x08", type: "application/x-gzip" },
  { pattern: "PK\x03\x04", type: "application/zip" },
  { pattern: "Rar!\x1A\x07\x00", type: "application/x-rar-compressed" },
  { pattern: "Rar!\x1A\x07\x01\x00", type: "application/x-rar-compressed" },
  { pattern: "\x00\x61\x73\x6D", type: "application/wasm" },
];

/** A content type for any bytes; `text/plain; charset=utf-8` for none. */
export function sniffContentType(body: Uint8Array): string {
  const head = Buffer.from(body.buffer, body.byteOffset, Math.min(body.length, looked)).toString("latin1");
  const text = head.replace(/^[\t\n\f\r ]+/, "");
  if (opensPage(text)) return markup;
  if (text.startsWith("<?xml")) return "text/xml; charset=utf-8";
  const found = signatures.find(({ pattern }) => fits(head, pattern));
  if (found !== undefined) return found.type;
  if (isMp4(head)) return "video/mp4";
  // oxlint-disable-next-line no-control-regex -- the standard's list of bytes that text does not hold
  return /[\x00-\x08\x0B\x0E-\x1A\x1C-\x1F]/.test(text) ? "application/octet-stream" : utf8;
}

function opensPage(text: string): boolean {
  if (!text.startsWith("<")) return false;
  const upper = text.slice(0, 16).toUpperCase();
  return tags.some(
    (tag) => upper.startsWith(tag) && (upper[tag.length] === " " || upper[tag.length] === ">"),
  );
}

function fits(head: string, pattern: string): boolean {
  if (head.length < pattern.length) return false;
  for (let i = 0; i < pattern.length; i++) if (pattern[i] !== "?" && pattern[i] !== head[i]) return false;
  return true;
}

/** A first box `ftyp` of a sane length that names an `mp4` brand (but for the version field in its middle). */
function isMp4(head: string): boolean {
  if (head.length < 12 || head.slice(4, 8) !== "ftyp") return false;
  const boxBytes = Buffer.from(head.slice(0, 4), "latin1").readUInt32BE();
  if (boxBytes > head.length || boxBytes % 4 !== 0) return false;
  for (let at = 8; at < boxBytes; at += 4) if (at !== 12 && head.startsWith("mp4", at)) return true;
  return false;
}
