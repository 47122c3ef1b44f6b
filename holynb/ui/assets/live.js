// The live view of a run: one message a tick comes in, one frame is painted. Says ready, stop, row and look; hears snapshot, delta and row.

/** Another page than this one, after a reload say, has another name. */
const page = (window.holynbPage ??= Math.random().toString(36).slice(2));

function render({ model, el }) {
  const id = `hn-${Math.random().toString(36).slice(2)}`;
  const root = make("div", "hn", null, { role: "region", "aria-label": "A run of holynb", "data-lm-suppress-shortcuts": "true" });
  const send = (cmd, more) => model.send({ cmd, ...more });
  const head = makeHead({ stop: () => send("stop") });
  const detail = makeDetail({ close: closeDetail });
  const look = every(300, (first, last) => send("look", { first, last }));
  const table = makeTable({ open: openDetail, look });
  const single = make("pre", "hn-answer", "", { dir: "auto", tabindex: "0", role: "log", "aria-label": "Answer" });
  const left = make("div", "hn-left");
  const body = make("div", "hn-body");
  let charts = null, seq = -1, due = 0, seen = true;
  left.append(table.node, single, detail.node);
  body.append(left);
  root.append(head.node, body);
  el.append(root);

  function openDetail(row) {
    detail.open(table.row(row));
    send("row", { row });
  }

  function full(message) {
    const first = !detail.filled();
    detail.fill(message);
    if (first) detail.node.scrollIntoView({ block: "nearest" });
  }

  function closeDetail() {
    detail.close();
    table.node.querySelector(".hn-scroll").focus({ preventScroll: true });
  }

  function take(message) {
    if (message.kind === "row") return full(message);
    if (message.kind === "delta" && message.seq !== seq + 1) return message.seq > seq && seq >= 0 ? send("ready", { seq, page, width: el.clientWidth }) : undefined;
    if (message.kind === "snapshot") begin(message);
    seq = message.seq;
    table.take(message);
    head.take(message.head);
    root.dataset.state = message.head.state;
    if (message.points) charts?.take(message.points);
    charts?.priced(message.head.cost !== "?");
    if (message.answer) answer(message.answer);
    if (detail.row() >= 0 && message.rows.some((r) => r[0] === detail.row())) send("row", { row: detail.row() });
    paint();
  }

  function begin(message) {
    const n = message.head.n;
    table.reset(n, id);
    head.begin(message);
    show(table.node, n !== 1 && message.parts !== "charts");
    show(single, n === 1 && message.parts !== "charts");
    if (!charts && message.parts !== "table") {
      charts = makeCharts(message.as_route);
      body.append(charts.node);
    }
    charts?.reset();
    root.style.setProperty("--hn-rows", Math.max(5, Math.min(n, 13)));
  }

  function answer({ text, more }) {
    const down = single.scrollHeight - single.scrollTop - single.clientHeight < 30;
    if (more === undefined) single.textContent = text;
    else single.append(document.createTextNode(more));
    if (down) single.scrollTop = single.scrollHeight;
  }

  /** At most one frame however many messages came, and none where nobody looks. */
  function paint() {
    if (due || !seen || document.hidden) return;
    due = requestAnimationFrame(() => {
      due = 0;
      table.paint();
      charts?.paint();
    });
  }

  const watch = new IntersectionObserver(([entry]) => {
    seen = entry.isIntersecting;
    paint();
  });
  watch.observe(root);
  document.addEventListener("visibilitychange", paint);
  model.on("msg:custom", take);
  const first = model.get("first");
  if (first?.kind) take(first);
  send("ready", { seq, page, width: el.clientWidth });

  return () => {
    cancelAnimationFrame(due);
    watch.disconnect();
    document.removeEventListener("visibilitychange", paint);
    model.off("msg:custom", take);
    charts?.close();
  };
}

/** Call at most once in `pause` ms, with the latest arguments, and not again with the same. */
function every(pause, call) {
  let timer = 0, last = "", next = null;
  return (...args) => {
    next = args;
    timer ||= setTimeout(() => {
      timer = 0;
      if (String(next) !== last) call(...next);
      last = String(next);
    }, pause);
  };
}

export default { render };
