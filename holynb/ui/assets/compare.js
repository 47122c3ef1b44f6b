// Two rows side by side: the one that is open is kept, the next that is opened stands beside it.

/** hooks: table, detail, showAs(row, format) asks for a row, toTable() moves the focus there. */
function makeCompare({ table, detail, showAs, toTable }) {
  const node = make("div", "hn-pair");
  const pair = make("div");
  const next = make("div", "hn-next", "", { role: "status", dir: "auto" });
  const kept = makeDetail({ close: leave, show: showAs });
  const keep = button("hn-button", t("Compare"), () => {
    const row = detail.row();
    kept.open(table.row(row));
    showAs(row, detail.picked());
    detail.close();
    say(next, t("Row {label} stays. Open another row to see it beside this one.", table.row(row)));
    arrange();
  }, { title: t("Keep this row, and see the next one beside it") });
  detail.node.querySelector(".hn-gap").after(keep);
  pair.append(kept.node, detail.node);
  node.append(next, pair);
  // The row beside is opened and closed elsewhere.
  new MutationObserver(() => {
    if (!detail.node.hidden) say(next, "");
    pair.classList.toggle("hn-two", !kept.node.hidden && !detail.node.hidden);
  }).observe(detail.node, { attributes: true, attributeFilter: ["hidden"] });

  function arrange() {
    pair.classList.toggle("hn-two", !kept.node.hidden && !detail.node.hidden);
    toTable();
  }

  function leave() {
    kept.close();
    say(next, "");
    arrange();
  }

  return {
    node,
    fill: kept.fill,
    /** Rows have changed. */
    update: (rows) => rows.some((r) => r.row === kept.row()) && showAs(kept.row(), kept.picked()),
  };
}
