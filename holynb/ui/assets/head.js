// The line above: progress, time left, speed, cost, and Stop.

/** [field of Head, word beside it]. */
const FIGURES = [
  ["eta", "left"], ["elapsed", "so far"], ["rows_s", "rows/s"], ["tokens_s", "tokens/s"], ["cost", "cost"], ["as_cost", "elsewhere"],
  ["cache_saved", "saved by the prompt cache"],
];

const ENDS = { done: "done", stopped: "stopped" };

/** hooks: stop(). */
function makeHead(hooks) {
  const node = make("div", "hn-head");
  const line = make("div", "hn-line");
  const title = make("span", "hn-run", "", { dir: "auto" });
  const by = make("span", "hn-by", "", { dir: "auto" });
  const badge = make("span", "hn-badge");
  const figures = make("div", "hn-figures");
  const stop = button("hn-button hn-stop", t("Stop"), () => hooks.stop());
  const track = make("div", "hn-track", null, { role: "progressbar", "aria-valuemin": "0", "aria-label": t("Rows done") });
  const [good, bad] = [make("div", "hn-good"), make("div", "hn-failed")];
  const note = make("div", "hn-note");
  const quality = make("div", "hn-quality-line", "", { dir: "auto" });
  const [failures, remark] = [make("span", "hn-bad", ""), make("span", null, "", { dir: "auto" })];
  const live = make("div", "hn-spoken", "", { role: "status", "aria-live": "polite" });
  track.append(good, bad);
  note.append(failures, " ", remark);
  const slots = {};
  for (const [name, word] of FIGURES) {
    const box = make("div", `hn-figure hn-figure-${name}`);
    slots[name] = { box, value: make("span", "hn-value"), word: make("span", "hn-word", t(word)) };
    box.append(slots[name].value, " ", slots[name].word);
    figures.append(box);
  }
  const done = make("span", "hn-done");
  line.append(done, figures, make("span", "hn-gap"), badge, title, by, stop);
  node.append(line, track, quality, note, live);
  show(badge, false);
  let announced = 0, spoken = "";

  return {
    node,
    /** Of a SnapshotMessage. */
    begin({ title: name, as_route, view }) {
      say(title, name);
      show(badge, Boolean(view.recorded));
      say(badge, view.recorded);
      show(stop, view.can_stop);
      say(slots.as_cost.word, as_route ? t("as {route}", { route: as_route }) : t("elsewhere"));
    },
    update(head) {
      say(done, t("{n} of {total}", { n: head.ended.toLocaleString("en"), total: head.n.toLocaleString("en") }));
      const running = head.state === "running" || head.state === "stopping";
      for (const [name] of FIGURES) {
        show(slots[name].box, Boolean(head[name]));
        say(slots[name].value, head[name]);
      }
      say(slots.elapsed.word, t(running ? "so far" : "in all"));
      say(by, title.textContent.endsWith(` · ${head.by}`) ? "" : head.by); // a recording's title names it
      if (by.title !== head.by) by.title = head.by;
      good.style.width = `${head.n ? (100 * (head.ended - head.failed)) / head.n : 0}%`;
      bad.style.width = `${head.n ? (100 * head.failed) / head.n : 0}%`;
      track.setAttribute("aria-valuemax", head.n);
      track.setAttribute("aria-valuenow", head.ended);
      track.setAttribute("aria-valuetext", done.textContent);
      const kinds = head.errors.map(({ kind, n }) => `${n} ${kind}`).join(", ");
      say(failures, head.failed ? t("{n} failed: {kinds}", { n: head.failed.toLocaleString("en"), kinds }) : "");
      say(remark, head.note);
      say(quality, head.quality);
      show(quality, head.quality !== "");
      show(note, Boolean(head.failed || head.note));
      if (head.state === "stopping") say(stop, t("Stop now"));
      if (!running) show(stop, false);
      node.dataset.state = head.state;
      // A screen reader is told what is seen, now and then, not ten times a second; at once where a run stops or ends.
      if (Date.now() - announced > 10_000 || head.state !== spoken) {
        [announced, spoken] = [Date.now(), head.state];
        const figures = FIGURES.map(([name]) => head[name] && `${head[name]} ${slots[name].word.textContent}`);
        const words = [done.textContent, failures.textContent, ...figures, head.quality, head.note, ENDS[head.state] ? t(ENDS[head.state]) : ""];
        say(live, words.filter(Boolean).join(", "));
      }
    },
  };
}
