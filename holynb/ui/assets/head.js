// The line above: progress, time left, speed, cost, and Stop.

/** [field of Head, word beside it]. */
const FIGURES = [
  ["eta", "left"], ["elapsed", "so far"], ["rows_s", "rows/s"], ["tokens_s", "tokens/s"], ["cost", "cost"], ["as_cost", "elsewhere"],
];

/** hooks: stop(). */
function makeHead(hooks) {
  const node = make("div", "hn-head");
  const line = make("div", "hn-line");
  const title = make("span", "hn-run", "", { dir: "auto" });
  const badge = make("span", "hn-badge");
  const figures = make("div", "hn-figures");
  const stop = button("hn-button hn-stop", "Stop", () => hooks.stop());
  const track = make("div", "hn-track", null, { role: "progressbar", "aria-valuemin": "0", "aria-label": "Rows done" });
  const [good, bad] = [make("div", "hn-good"), make("div", "hn-failed")];
  const note = make("div", "hn-note");
  const [failures, remark] = [make("span", "hn-bad", ""), make("span", null, "", { dir: "auto" })];
  const live = make("div", "hn-spoken", "", { role: "status", "aria-live": "polite" });
  track.append(good, bad);
  note.append(failures, " ", remark);
  const slots = {};
  for (const [name, word] of FIGURES) {
    const box = make("div", `hn-figure hn-figure-${name}`);
    slots[name] = { box, value: make("span", "hn-value"), word: make("span", "hn-word", word) };
    box.append(slots[name].value, " ", slots[name].word);
    figures.append(box);
  }
  const done = make("span", "hn-done");
  line.append(done, figures, make("span", "hn-gap"), badge, title, stop);
  node.append(line, track, note, live);
  show(badge, false);
  let announced = 0;

  return {
    node,
    /** Of a SnapshotMessage. */
    begin({ title: name, as_route, view }) {
      say(title, name);
      show(badge, Boolean(view.recorded));
      say(badge, view.recorded);
      show(stop, view.can_stop);
      say(slots.as_cost.word, as_route ? `as ${as_route}` : "elsewhere");
    },
    update(head) {
      say(done, `${head.ended.toLocaleString("en")} of ${head.n.toLocaleString("en")}`);
      const running = head.state === "running" || head.state === "stopping";
      for (const [name] of FIGURES) {
        const text = name === "cost" && head.unknown_cost ? `${head.cost} + ${head.unknown_cost.toLocaleString("en")} unknown` : head[name];
        show(slots[name].box, Boolean(text) && (running || name !== "eta"));
        say(slots[name].value, text || "–");
      }
      say(slots.cost.word, head.simulated ? "cost, simulated" : "cost");
      good.style.width = `${head.n ? (100 * (head.ended - head.failed)) / head.n : 0}%`;
      bad.style.width = `${head.n ? (100 * head.failed) / head.n : 0}%`;
      track.setAttribute("aria-valuemax", head.n);
      track.setAttribute("aria-valuenow", head.ended);
      const kinds = head.errors.map(({ kind, n }) => `${n} ${kind}`).join(", ");
      say(failures, head.failed ? `${head.failed.toLocaleString("en")} failed: ${kinds}` : "");
      say(remark, head.note);
      show(note, Boolean(head.failed || head.note));
      if (head.state === "stopping") say(stop, "Stop now");
      if (!running) show(stop, false);
      node.dataset.state = head.state;
      if (Date.now() - announced > 10_000 || !running) { // a screen reader reads it now and then, not ten times a second
        announced = Date.now();
        say(live, `${head.ended} of ${head.n} rows, ${head.failed} failed${running ? "" : `, ${head.state}`}`);
      }
    },
  };
}
