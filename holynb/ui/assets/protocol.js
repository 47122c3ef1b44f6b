// What the page and the kernel exchange: the page's half of holynb/ui/live/protocol.py, where every message is a type.

/** The fields of a row, in the order in which its values come. */
const ROW_FIELDS = ["row", "status", "cached", "text", "tokens_in", "tokens_out", "cost", "latency_s", "attempts", "score"];

function decodeRow(values) {
  const row = Object.fromEntries(ROW_FIELDS.map((name, i) => [name, values[i]]));
  return Object.assign(row, { failed: row.status === "error" });
}

/** A row of which nothing has come yet. */
function waitingRow(row) {
  return decodeRow([row, "waiting", false, "", "", "", "", "", 0, ""]);
}

/** The page's own messages, each sent by `send`. */
const toKernel = {
  ready: (page, seq, width) => ({ cmd: "ready", page, seq, width }),
  stop: () => ({ cmd: "stop" }),
  detail: (row, format) => ({ cmd: "detail", row, format }),
  visible: (first, last) => ({ cmd: "visible", first, last }),
};
