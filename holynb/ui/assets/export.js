// Copy, CSV and Parquet of a run that is shown again. The kernel has the texts in full, and writes the files beside the notebook.

/** send(what, safe, all) asks the kernel. all: rows, whatever the table shows. */
function makeExport(send) {
  const node = make("div", "hn-bar hn-export", null, { role: "toolbar", "aria-label": t("Export the rows") });
  const why = make("span", "hn-spoken", "", { id: `hn-why-${Math.random().toString(36).slice(2)}` });
  const safe = make("input", null, null, { type: "checkbox" });
  const formula = "An apostrophe before a cell that begins with = + - @ keeps it from running as a formula";
  const choice = make("label", "hn-choice", null, { title: t(formula) });
  const said = make("span", "hn-exported", "", { role: "status", dir: "auto" });
  const ask = (what) => {
    if (what === "parquet" && why.textContent) return say(said, why.textContent);
    say(said, t(what === "copy" ? "Copying…" : "Writing…"));
    send(what, safe.checked, what !== "copy");
  };
  const copy = button("hn-button", t("Copy"), () => ask("copy"), { title: t("Copy the rows that the table shows") });
  const csv = button("hn-button", "CSV", () => ask("csv"), { title: t("Write all rows as a CSV file beside the notebook") });
  const parquet = button("hn-button", "Parquet", () => ask("parquet"), { title: t("Write all rows as a Parquet file beside the notebook") });
  choice.append(safe, " ", t("Safe for spreadsheets"));
  node.append(copy, csv, parquet, choice, said, why);
  return {
    node,
    /** Of a SnapshotMessage. no_parquet: why there is none. It stays within reach of the Tab key, so that the reason is heard. */
    begin({ no_parquet }) {
      say(why, no_parquet);
      if (!no_parquet) return;
      for (const [name, value] of [["aria-disabled", "true"], ["aria-describedby", why.id], ["title", no_parquet]]) parquet.setAttribute(name, value);
    },
    /** message: ExportedMessage. */
    async done(message) {
      const refused = message.text && !(await toClipboard(message.text, copy));
      say(said, refused ? t("The browser does not allow copying here. CSV writes a file.") : message.said);
      said.classList.toggle("hn-bad", Boolean(refused) || message.failed);
    },
  };
}

/** Whether a text could be copied. A page that is not served over https has the old way alone, which moves the focus: it goes back to `from`. */
async function toClipboard(text, from) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const box = make("textarea", "hn-spoken", null, { "aria-hidden": "true", tabindex: "-1" });
    box.value = text;
    from.parentNode.append(box);
    box.select();
    const done = document.execCommand("copy");
    box.remove();
    from.focus({ preventScroll: true });
    return done;
  }
}
