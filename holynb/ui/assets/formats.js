// How an answer is shown. The kernel renders it, by an allow-list (ui/output/markdown.py): the page has no renderer, and this is its only HTML.

const FORMATS = { text: "Text", markdown: "Markdown", code: "Code", json: "JSON" };

/** A choice of formats. choose(format) is called with what a person picks. */
function makeFormats(choose) {
  const node = make("select", "hn-formats", null, { "aria-label": t("Show the answer as"), title: t("Show the answer as") });
  for (const [value, word] of Object.entries(FORMATS)) node.append(make("option", "", t(word), { value }));
  let picked = null;
  node.addEventListener("change", () => choose((picked = node.value)));
  return {
    node,
    /** null until somebody has picked one: the kernel knows the run's own. */
    picked: () => picked,
    /** format: what is shown now. */
    update: (format) => (node.value = format),
  };
}

/** Show what the kernel rendered. The same again costs no layout, and keeps what is selected. */
function sayRendered(node, html) {
  if (node.rendered !== html) node.innerHTML = node.rendered = html;
}
