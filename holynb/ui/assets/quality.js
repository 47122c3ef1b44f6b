// How good the answers are so far: figures by class, and who is taken for what. A cell's background is the number's share of its row.

function makeQuality() {
  const node = make("details", "hn-quality");
  node.open = true;
  const tables = make("div", "hn-quality-tables");
  node.append(make("summary", null, t("Quality")), tables);
  show(node, false);

  function cell(text, i, j, kind, total) {
    if (j === 0) return make("th", null, text, { scope: "row", dir: "auto" });
    const right = kind === "matrix" && j === i + 1;
    const td = make("td", right ? "hn-right" : null, kind === "matrix" && text === "0" && !right ? "·" : text);
    const share = kind === "matrix" && total ? Number(text) / total : 0;
    if (share) td.style.backgroundColor = `rgba(${right ? "46,125,50" : "198,40,40"},${(0.42 * share).toFixed(2)})`;
    return td;
  }

  function table({ title, kind, head, rows }) {
    const box = make("div", "hn-quality-table", null, { tabindex: "0", role: "group", "aria-label": title });
    const [grid, thead, top, body] = [make("table"), make("thead"), make("tr"), make("tbody")];
    head.forEach((name) => top.append(name ? make("th", null, name, { scope: "col" }) : make("td")));
    thead.append(top);
    rows.forEach((values, i) => {
      const line = make("tr");
      const total = values.slice(1).reduce((sum, v) => sum + Number(v), 0);
      values.forEach((v, j) => line.append(cell(v, i, j, kind, total)));
      body.append(line);
    });
    grid.append(make("caption", null, title), thead, body);
    box.append(grid);
    return box;
  }

  return {
    node,
    /** `found`: the tables as they stand; null where nothing has changed. */
    update(found) {
      if (!found) return;
      tables.replaceChildren(...found.map(table));
      show(node, found.length > 0);
    },
  };
}
