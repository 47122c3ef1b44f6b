// One row in full: prompt, answer, attempts, the server's words. Requested from the kernel; until it answers, what the table has.

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

  function part(title, text, name = "") {
    const box = make("div", `hn-part ${name}`);
    box.append(make("h4", null, title), make("pre", null, text, { dir: "auto", tabindex: "0" }));
    return box;
  }

  return {
    node,
    row: () => row,
    filled: () => filled,
    /** What the table has of a row: its label, its prompt and its line. */
    open({ label, prompt, line }) {
      row = line.row;
      filled = false;
      show(node, true);
      say(title, `Row ${label}`);
      say(facts, line.status);
      body.replaceChildren(part("Prompt", prompt), part(line.failed ? "Error" : "Answer", line.text));
    },
    /** message: DetailMessage. */
    fill(message) {
      if (message.row !== row) return;
      filled = true;
      say(title, `Row ${message.label}`);
      say(facts, message.facts);
      const parts = message.parts.map(({ title, text, kind }) => part(title, text, kind ? `hn-is-${kind}` : ""));
      if (message.attempts.length) {
        const box = make("div", "hn-part hn-attempts");
        const rows = make("ol");
        for (const { at, text } of message.attempts) {
          const item = make("li");
          item.append(make("span", "hn-soft", at), " ", make("span", null, text, { dir: "auto" }));
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
