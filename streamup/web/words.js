// How numbers and errors are said, by all pages.

import { Refused } from "./streamup.js";

/** What to tell a person of an error. One that is a defect of ours is thrown on: the console shows it. */
export function explained(error) {
  if (!(error instanceof Refused)) throw error;
  return error.message;
}

/** Bytes, as people read them. */
export function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const step = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(bytes, 1)) / 10));
  const value = bytes / 1024 ** step;
  return `${value.toFixed(step && value < 100 ? 1 : 0)} ${units[step]}`;
}

/** A length of time: 0:07, 12:00, 1:02:03. */
export function duration(milliseconds) {
  const seconds = Math.floor(milliseconds / 1000);
  const two = (number) => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  return `${hours ? `${hours}:${two(minutes)}` : minutes}:${two(seconds % 60)}`;
}

/** Seconds, by the largest unit that they fill: two minutes are "2 min". */
export function roughly(seconds) {
  const units = [[86400, "d"], [3600, "h"], [60, "min"]];
  const [unit, name] = units.find(([unit]) => seconds >= unit) ?? [1, "s"];
  return `${Math.max(0, Math.floor(seconds / unit))} ${name}`;
}

/** A point in time (RFC 3339), where and as the reader lives. */
export function moment(time) {
  return new Date(time).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}
