// Small pieces for the rest. Text of prompts, models and servers reaches the page through textContent alone; formats.js has the exception.

/** English → the kernel's language, with the same {places} (holynb/ko.toml); empty where that is English. */
let texts = {};

/** A text of ours as a person reads it. Whatever is shown goes through here; tests/ui/live/test_texts.py looks. */
function t(english, values = {}) {
  return (texts[english] ?? english).replace(/\{(\w+)\}/g, (place, name) => values[name] ?? place);
}

function make(tag, name, text, attributes) {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text != null) node.textContent = text;
  for (const [key, value] of Object.entries(attributes ?? {})) node.setAttribute(key, value);
  return node;
}

/** Set text only where it differs: writing the same text again costs a layout. */
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function show(node, yes) {
  if (node.hidden === yes) node.hidden = !yes;
}

/** A button with a word on it. */
function button(name, text, press, attributes) {
  const node = make("button", name, text, { type: "button", ...attributes });
  node.addEventListener("click", press);
  return node;
}

const write = {
  dollars(v) {
    if (v === 0) return "$0";
    const digits = v >= 0.1 ? 2 : Math.min(8, 1 - Math.floor(Math.log10(v)));
    return "$" + v.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  },
  seconds(v) {
    if (v === 0) return "0 s";
    if (v < 0.0995) return `${(v * 1000).toFixed(v < 0.00995 ? 1 : 0)} ms`;
    if (v < 120) return (v < 0.995 ? v.toFixed(2) : v < 9.95 ? v.toFixed(1) : Math.round(v)) + " s";
    const whole = Math.round(v);
    if (whole < 7200) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
    return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  },
  /** A place on the time axis: 45s, 2:30, 1:05h. */
  clock(v) {
    if (v === 0) return ""; // the vertical axis has its own 0 there
    if (v < 60) return `${+v.toFixed(2)}s`;
    if (v < 3600) return `${Math.floor(v / 60)}:${String(Math.round(v % 60)).padStart(2, "0")}`;
    return `${Math.floor(v / 3600)}:${String(Math.round((v % 3600) / 60)).padStart(2, "0")}h`;
  },
  /** Three digits, as units.three_digits says them. */
  count: (v) => (+v.toPrecision(3)).toLocaleString("en", { maximumFractionDigits: 9 }),
  /** As units.memory says them. */
  bytes: (v) => (v >= 1e8 ? `${write.count(v / 1e9)} GB` : v >= 1e6 ? `${Math.round(v / 1e6).toLocaleString("en")} MB` : v ? `${Math.round(v / 1e3)} kB` : "0 GB"),
};
