// Numbers and times as people read them, always with their unit.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short", hourCycle: "h23" });

const grouped = (n) => whole.format(n).replaceAll(",", "\u202f");

// A number and its unit stay on one line.
const unit = (n, name) => `${short(n)}\u00a0${name}`;

// Three significant digits, as 1.23, 12.3, 123.
function short(n) {
  const size = Math.abs(n);
  if (size >= 100) return grouped(n);
  return n.toFixed(size >= 10 ? 1 : 2).replace(/\.?0+$/, "");
}

export const count = (n) => (n < 1e6 ? grouped(n) : n < 1e9 ? unit(n / 1e6, "M") : unit(n / 1e9, "G"));
export const rate = (n) => (n === 0 ? "0" : n < 10 ? n.toFixed(1) : grouped(n));
export const percent = (share) => (share > 0 && share < 0.001 ? "<\u00a00.1\u00a0%" : unit(Math.round(share * 1000) / 10, "%"));

export function duration(us) {
  if (us === null || us === undefined) return "–";
  if (us < 1000) return unit(Math.round(us), "µs");
  if (us < 1e6) return unit(us / 1e3, "ms");
  return us < 60e6 ? unit(us / 1e6, "s") : span(us / 1000);
}

export function bytes(n) {
  if (n === null || n === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let power = 0;
  while (n >= 1024 && power < units.length - 1) { n /= 1024; power += 1; }
  return unit(n, units[power]);
}

// A stretch of time, ms, in its two largest units.
export function span(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s}\u00a0s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

// A moment: only the time if it is not long ago.
export const moment = (ms, now = Date.now()) => (Math.abs(now - ms) < 43_200_000 ? clock : day).format(new Date(ms));

export const plural = (n, one, many = `${one}s`) => `${grouped(n)} ${n === 1 ? one : many}`;
