import { expect, it } from "vitest";
import { sniffContentType } from "./content-type.ts";

const utf8 = "text/plain; charset=utf-8";

it.each([
  ["", utf8],
  ["plain text", utf8],
  ['{"json":true}', utf8],
  ["[1,2]", utf8],
  ["\x1B[31mred", utf8],
  ["<html>", "text/html; charset=utf-8"],
  ["\n\t <!doctype html >", "text/html; charset=utf-8"],
  ["<!-- note", "text/html; charset=utf-8"],
  ["<p>x", "text/html; charset=utf-8"],
  ["<param>", utf8],
  ["<p", utf8],
  ["  <?xml version='1.0'?>", "text/xml; charset=utf-8"],
  ["%PDF-1.7", "application/pdf"],
  ["%!PS-Adobe-3.0", "application/postscript"],
  ["\xFE\xFF\x00a", "text/plain; charset=utf-16be"],
  ["\xFF\xFEa\x00", "text/plain; charset=utf-16le"],
  ["\xEF\xBB\xBFtext", utf8],
  ["\x00\x00\x01\x00", "image/x-icon"],
  ["BM12", "image/bmp"],
  ["GIF89a..", "image/gif"],
  ["\x89PNG\r\n\x1A\n", "image/png"],
  ["\xFF\xD8\xFF\xE0", "image/jpeg"],
  ["RIFF\x01\x02\x03\x04WEBPVP8 ", "image/webp"],
  ["RIFF\x01\x02\x03\x04WAVEfmt ", "audio/wave"],
  ["FORM\x01\x02\x03\x04AIFF", "audio/aiff"],
  ["ID3\x03", "audio/mpeg"],
  ["OggS\x00", "application/ogg"],
  ["\x1A\x45\xDF\xA3", "video/webm"],
  ["\x00\x00\x00\x14ftypisom\x00\x00\x02\x00mp42....", "video/mp4"],
  ["\x00\x00\x00\x10ftypqt  mp42", "application/octet-stream"],
  ["wOF2", "font/woff2"],
  [`${"\x00".repeat(34)}LP`, "application/vnd.ms-fontobject"],
  ["\x1F\x8B\x08\x00", "application/x-gzip"],
  ["PK\x03\x04", "application/zip"],
  ["Rar!\x1A\x07\x00", "application/x-rar-compressed"],
  ["\x00\x61\x73\x6D", "application/wasm"],
  ["text\x00", "application/octet-stream"],
  ["\x01", "application/octet-stream"],
  [`${"x".repeat(512)}\x00`, utf8],
])("%j is %s", (text, type) => {
  expect(sniffContentType(Buffer.from(text, "latin1"))).toBe(type);
});
