// One row in full: prompt, answer, attempts, the server's words. Requested from the kernel; until it answers, what the table has.

/** What a model thinks, folded: its summary and its text. */
function makeThoughts() {
  const node = make("details", "hn-thoughts");
  const about = make("summary");
  const said = make("pre", null, "", { dir: "auto", tabindex: "0" });
  node.append(about, said);
  return { node, about, said };
}

/** hooks: close(), show(row, format). */
function makeDetail(hooks) {
  const node = make("section", "hn-detail", null, { "aria-label": t("Row details") });
  node.hidden = true;
  const bar = make("div", "hn-bar");
  const title = make("strong", "hn-title");
  const facts = make("span", "hn-soft");
  const formats = makeFormats((format) => hooks.show(row, format));
  bar.append(title, facts, make("span", "hn-gap"), formats.node, button("hn-button", t("Close"), () => hooks.close(), { "aria-label": t("Close the row") }));
  const body = make("div", "hn-detail-body");
  node.append(bar, body);
  node.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    hooks.close();
    event.stopPropagation();
  });
  let row = -1, filled = false, shape = "", unfolded = false, parts = [];

  /** A text under its title; what was thought is folded, and stays open while its row goes on. */
  function part({ title, text, kind, html }) {
    if (kind === "thought") {
      const { node: box, about, said } = makeThoughts();
      box.classList.add("hn-part");
      box.open = unfolded;
      box.addEventListener("toggle", () => (unfolded = box.open));
      return filledPart({ box, head: about, said }, title, text);
    }
    const box = make("div", `hn-part ${kind ? `hn-is-${kind}` : ""}`);
    const [head, said] = [make("h4"), make(html ? "div" : "pre", null, "", { dir: "auto", tabindex: "0" })];
    box.append(head, said);
    return filledPart({ box, head, said }, title, text, html);
  }

  function filledPart(it, title, text, html) {
    say(it.head, title);
    if (html) sayRendered(it.said, html);
    else say(it.said, text);
    return it;
  }

  function attemptList(attempts) {
    const box = make("div", "hn-part hn-attempts");
    const rows = make("ol");
    for (const { at, text } of attempts) {
      const item = make("li");
      item.append(make("span", "hn-soft", at), " ", make("span", null, text, { dir: "auto" }));
      rows.append(item);
    }
    box.append(make("h4", null, t("Attempts")), rows);
    return box;
  }

  return {
    node,
    row: () => row,
    picked: formats.picked,
    filled: () => filled,
    /** What the table has of a row: its label, its prompt and its line. */
    open({ label, prompt, line }) {
      if (row !== line.row) unfolded = false;
      row = line.row;
      node.setAttribute("aria-label", t("Details of row {label}", { label }));
      filled = false;
      show(node, true);
      say(title, t("Row {label}", { label }));
      say(facts, line.status);
      shape = "";
      const first = [{ title: t("Prompt"), text: prompt }, { title: t(line.failed ? "Error" : "Answer"), text: line.text }];
      body.replaceChildren(...first.map((p) => part(p).box));
    },
    /** message: DetailMessage. */
    fill(message) {
      if (message.row !== row) return;
      filled = true;
      formats.update(message.format);
      say(title, t("Row {label}", message));
      say(facts, message.facts);
      // What stands there is kept: a row that goes on is filled several times a second, while somebody clicks or selects in it.
      const now = JSON.stringify([message.parts.map((p) => [p.kind, !p.html]), message.attempts.length]);
      if (now === shape) return message.parts.forEach((p, i) => filledPart(parts[i], p.title, p.text, p.html));
      shape = now;
      parts = message.parts.map(part);
      const top = body.scrollTop;
      body.replaceChildren(...parts.map((p) => p.box), ...(message.attempts.length ? [attemptList(message.attempts)] : []));
      body.scrollTop = top;
    },
    close() {
      row = -1;
      show(node, false);
    },
  };
}
