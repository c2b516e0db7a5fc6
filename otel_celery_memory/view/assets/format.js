"use strict";
// Numbers, times and names for people. Pure functions: nothing here knows of the page.

const format = (() => {
  const UNITS = [["TiB", 2 ** 40], ["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]];
  const LOCALE = "en-GB";
  const UNKNOWN = "–";
  // Control characters, and those that change the direction of writing: a name that has them could
  // pass for another one.
  const CONTROL = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

  const known = (number) => typeof number === "number" && Number.isFinite(number);

  function size(bytes) {
    if (!known(bytes)) return UNKNOWN;
    for (const [unit, factor] of UNITS)
      if (Math.abs(bytes) >= factor * 0.99995)
        return `${(bytes / factor).toLocaleString(LOCALE, {
          minimumFractionDigits: 1,
          maximumFractionDigits: 1,
        })} ${unit}`;
    return `${Math.round(bytes)} B`;
  }

  function count(number) {
    return known(number) ? Math.round(number).toLocaleString(LOCALE) : UNKNOWN;
  }

  function plural(number, one, many = `${one}s`) {
    return `${count(number)} ${Math.round(number) === 1 ? one : many}`;
  }

  function share(part) {
    if (!known(part)) return UNKNOWN;
    const percent = part * 100;
    if (percent > 0 && percent < 1) return "< 1 %";
    return `${Math.round(percent)} %`;
  }

  function duration(seconds) {
    if (!known(seconds)) return UNKNOWN;
    for (const [unit, factor] of [["d", 86400], ["h", 3600], ["min", 60]])
      if (seconds >= 1.5 * factor) return `${Math.round(seconds / factor)} ${unit}`;
    return `${Math.max(Math.round(seconds), 0)} s`;
  }

  function clock(seconds) {
    return new Date(seconds * 1000).toLocaleTimeString(LOCALE);
  }

  function moment(seconds, now) {
    const date = new Date(seconds * 1000);
    const today = new Date(now * 1000).toDateString() === date.toDateString();
    const day = { year: "numeric", month: "short", day: "numeric" };
    return today ? clock(seconds) : `${date.toLocaleDateString(LOCALE, day)} ${clock(seconds)}`;
  }

  function text(value) {
    return String(value ?? "").replace(CONTROL, "?");
  }

  return { size, count, plural, share, duration, clock, moment, text, known, UNKNOWN };
})();
