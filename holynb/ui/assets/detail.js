// One row in full: prompt, answer, attempts, what the server said. Asked for from the kernel; until it answers, what the table knows.

/** hooks: close(). */
function makeDetail(hooks) {
  const node = make("section", "hn-detail", null, { "aria-label": "One row in full" });
  node.hidden = true;
  const bar = make("div", "hn-bar");
  const title = make("strong", "hn-title");
  const facts = make("span", "hn-soft");
  bar.append(title, facts, make("span", "hn-gap"), button("hn-button", "Close", () => hooks.close(), { "aria-label": "Close the row" }));
  const body = make("div", "hn-detail-body");
  node.append(bar, body);
  node.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    hooks.close();
    event.stopPropagation();
  });
  let row = -1, filled = false;

  function part(word, text, name = "") {
    const box = make("div", `hn-part ${name}`);
    box.append(make("h4", null, word), make("pre", null, text, { dir: "auto", tabindex: "0" }));
    return box;
  }

  return {
    node,
    row: () => row,
    filled: () => filled,
    /** known: what the table has of the row. */
    open(known) {
      row = known.values[0];
      filled = false;
      show(node, true);
      say(title, `Row ${known.label}`);
      say(facts, known.values[1].replace("!", ""));
      body.replaceChildren(part("Prompt", known.prompt), part(known.values[1][0] === "!" ? "Error" : "Answer", known.values[2]));
    },
    /** full: {row, label, facts, parts: [[word, text, kind]], attempts: [[at, what]]}. */
    fill(full) {
      if (full.row !== row) return;
      filled = true;
      say(title, `Row ${full.label}`);
      say(facts, full.facts);
      const parts = full.parts.map(([word, text, kind]) => part(word, text, kind ? `hn-is-${kind}` : ""));
      if (full.attempts.length) {
        const box = make("div", "hn-part hn-attempts");
        const rows = make("ol");
        for (const [at, what] of full.attempts) {
          const item = make("li");
          item.append(make("span", "hn-soft", at), " ", make("span", null, what, { dir: "auto" }));
          rows.append(item);
        }
        box.append(make("h4", null, "Attempts"), rows);
        parts.push(box);
      }
      const top = body.scrollTop;
      body.replaceChildren(...parts);
      body.scrollTop = top;
    },
    close() {
      row = -1;
      show(node, false);
    },
  };
}
