// The live view of a run: one message a tick comes in, one frame is painted. Messages are those of protocol.js.

/** A page that was reloaded has another name. */
const page = (window.holynbPage ??= Math.random().toString(36).slice(2));

const FIRST_CHARTS_MS = 50;

function render({ model, el }) {
  texts = model.get("texts");
  const id = `hn-${Math.random().toString(36).slice(2)}`;
  const root = make("div", "hn", null, { role: "region", "aria-label": t("A run of holynb"), "data-lm-suppress-shortcuts": "true" });
  const send = (message) => model.send(message);
  const ready = () => send(toKernel.ready(page, seq, el.clientWidth));
  const head = makeHead({ stop: () => send(toKernel.stop()) });
  const connection = makeConnection(root);
  const showAs = (row, format) => send(toKernel.detail(row, format));
  const detail = makeDetail({ close: closeDetail, show: showAs });
  const visible = throttle(300, (first, last) => send(toKernel.visible(first, last)));
  const table = makeTable({ open: openDetail, visible });
  // Of a run that is shown again; one that goes on is sent without it.
  const again = typeof makeAgain === "function" ? makeAgain({ send, table, detail, showAs, toTable }) : null;
  const single = make("pre", "hn-answer", "", { dir: "auto", tabindex: "0", role: "log", "aria-label": t("Answer") });
  const rendered = make("div", "hn-rendered", "", { dir: "auto", tabindex: "0", role: "region", "aria-label": t("Answer") });
  const formats = makeFormats((format) => send(toKernel.detail(0, format)));
  const thoughts = makeThoughts();
  const left = make("div", "hn-left");
  const body = make("div", "hn-body");
  let charts = null, seq = -1, frame = 0, inSight = true, drawing = 0, drawn = false;
  left.append(table.node, thoughts.node, formats.node, single, rendered, again?.pair.node ?? detail.node);
  if (again) table.node.after(again.bar.node);
  body.append(left);
  const quality = makeQuality();
  root.append(connection.node, head.node, body, quality.node);
  el.append(root);

  function openDetail(row) {
    detail.open(table.row(row));
    send(toKernel.detail(row, detail.picked()));
  }

  /** A run's only answer as somebody asked for it; text where it is none of that. */
  function showOnly(message) {
    const html = message.parts.find((p) => p.html)?.html ?? "";
    formats.update(message.format);
    sayRendered(rendered, html);
    show(rendered, html !== "");
    show(single, html === "");
  }

  function fillDetail(message) {
    const first = !detail.filled();
    detail.fill(message);
    again?.pair.fill(message);
    if (first) detail.node.scrollIntoView({ block: "nearest" });
  }

  function closeDetail() {
    detail.close();
    toTable();
  }

  function toTable() {
    table.node.querySelector(".hn-scroll").focus({ preventScroll: true });
  }

  function onMessage(message) {
    if (message.kind === "detail") return formats.node.hidden ? fillDetail(message) : showOnly(message);
    if (message.kind === "exported") return void again?.bar.done(message);
    if (message.kind === "delta" && message.seq !== seq + 1) return message.seq > seq && seq >= 0 ? ready() : undefined;
    if (message.kind === "snapshot") begin(message);
    seq = message.seq;
    const rows = message.rows.map(decodeRow);
    table.update(rows, message.prompts, message.head, message.pictures);
    head.update(message.head);
    quality.update(message.quality);
    root.dataset.state = message.head.state;
    if (message.points) charts?.update(message.points);
    charts?.simulated(message.head.simulated);
    if (message.answer) grow(single, message.answer);
    if (message.thoughts) updateThoughts(message.thoughts);
    if (detail.row() >= 0 && rows.some((r) => r.row === detail.row())) showAs(detail.row(), detail.picked());
    again?.pair.update(rows);
    offerFormats(message.head);
    connection.heard(message.head.state === "running" || message.head.state === "stopping");
    paint();
  }

  /** While the only answer grows it is text. */
  function offerFormats({ n, state }) {
    const offers = n === 1 && !["running", "stopping"].includes(state) && !(single.hidden && rendered.hidden);
    if (offers && formats.node.hidden) send(toKernel.detail(0, formats.picked()));
    show(formats.node, offers);
  }

  function begin(message) {
    const n = message.head.n;
    table.reset(message.listed, id, message.shared_prefix, message.window);
    head.begin(message);
    connection.begin(message.view);
    again?.bar.begin(message.view);
    show(table.node, n !== 1 && message.view.parts !== "charts");
    show(single, n === 1 && message.view.parts !== "charts");
    for (const node of [thoughts.node, formats.node, rendered]) show(node, false);
    if (!charts && message.view.parts !== "table") {
      charts = makeCharts(message.as_route);
      body.append(charts.node);
    }
    charts?.reset();
    root.style.setProperty("--hn-rows", Math.max(5, Math.min(n, 13)));
  }

  function grow(node, { text, append }) {
    const atEnd = node.scrollHeight - node.scrollTop - node.clientHeight < 30;
    if (append) node.append(document.createTextNode(text));
    else node.textContent = text;
    if (atEnd) node.scrollTop = node.scrollHeight;
  }

  function updateThoughts(piece) {
    show(thoughts.node, piece.summary !== "" && !single.hidden);
    say(thoughts.about, piece.summary);
    grow(thoughts.said, piece);
  }

  /** At most one frame however many messages came, and none out of sight. */
  function paint() {
    if (frame || !inSight || document.hidden) return;
    frame = requestAnimationFrame(() => {
      frame = 0;
      charts?.lay(); // first, since they take their width from the table
      table.paint();
      if (drawn) charts?.draw();
      else drawing ||= setTimeout(firstCharts, FIRST_CHARTS_MS);
    });
  }

  /** What charts show is drawn once the first rows are on the screen. */
  function firstCharts() {
    drawn = true;
    paint();
  }

  const watch = new IntersectionObserver(([entry]) => {
    inSight = entry.isIntersecting;
    paint();
  });
  watch.observe(root);
  document.addEventListener("visibilitychange", paint);
  model.on("msg:custom", onMessage);
  const first = model.get("first");
  if (first?.kind) onMessage(first);
  // It is drawn before it stands in the page, where it has no width yet: a page that is loaded already is quick enough for that.
  let opening = 0;
  const open = (tries) => {
    if (el.clientWidth || !tries) ready();
    else opening = setTimeout(open, 20, tries - 1);
  };
  open(10);

  return () => {
    clearTimeout(opening);
    clearTimeout(drawing);
    cancelAnimationFrame(frame);
    watch.disconnect();
    document.removeEventListener("visibilitychange", paint);
    model.off("msg:custom", onMessage);
    charts?.close();
    table.close();
    connection.close();
  };
}

/** Call at most once in `pause` ms, with the latest arguments, and not again with the same. */
function throttle(pause, call) {
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
