// Formats numbers, times and names for people. Pure.

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const two = new Intl.NumberFormat('en', { maximumSignificantDigits: 2 });
const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 4 });

/** A number of packets, exact below ten million. */
export function count(packets) {
  return Math.abs(packets) < 1e7 ? whole.format(packets) : compact.format(packets);
}

/** Packets per second, with the unit; an ellipsis if the rate is unknown (null). */
export function rate(perSecond) {
  if (perSecond === null) return '…';
  if (perSecond === 0) return '0';
  if (perSecond < 0.01) return '<0.01/s';
  if (perSecond < 9.95) return `${two.format(perSecond)}/s`;
  return `${perSecond < 1e5 ? whole.format(perSecond) : compact.format(perSecond)}/s`;
}

/** `1 packet`, `2 packets`. */
export function some(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** A time span, rounded: `90 s`, `5 min`, `3 h`, `2 days`. */
export function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 100) return `${s} s`;
  if (s < 100 * 60) return `${Math.round(s / 60)} min`;
  if (s < 48 * 3600) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} days`;
}

/** A point in time: the time of day, with the date unless it is today. */
export function clock(seconds) {
  const date = new Date(seconds * 1000);
  const time = date.toLocaleTimeString('en-GB');
  const today = date.toDateString() === new Date().toDateString();
  return today ? time : `${date.toLocaleDateString('en-CA')} ${time}`;
}

/** Characters that are invisible or change how others look: controls, line separators, directions, joiners. */
const unseen = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/gu;
const LONGEST = 120;

/** Makes a name safe to show anywhere: invisible characters are escaped, and long names are cut. */
export function name(text, longest = LONGEST) {
  const cut = text.length > longest ? `${text.slice(0, longest)}…` : text;
  return cut.replace(unseen, (c) => ({ '\n': '\\n', '\r': '\\r', '\t': '\\t' })[c] ?? `\\u{${c.codePointAt(0).toString(16)}}`);
}

/** The full name, for a tooltip, if `name` cuts it; else null. */
export function wholeName(text) {
  return text.length > LONGEST ? text.slice(0, 2000) : null;
}
