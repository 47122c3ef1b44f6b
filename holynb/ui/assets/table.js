// A virtualised table: of ten thousand rows only those in sight are in the page. Rows are those of protocol.js.

const HEADS_PX = 28; // as in live.css
/** Up to which width of the table it looks how, and how high its rows are, as in live.css: two lines where a row has no room for both texts. */
const FITS = [["stack", 440, 46], ["narrow", 700, 28], ["mid", 1000, 28], ["wide", Infinity, 28]];
/** As the result's columns are called. */
const COLUMNS = ["", "prompt", "text", "status", "tokens_in", "tokens_out", "cost", "latency_s"];
const TEXTS = ["prompt", "text", "status"];
const GLYPHS = { ok: "✓", error: "!", cancelled: "–", skipped: "–", running: "…", thinking: "…", retrying: "↻", waiting: "" };
const FILTERS = {
  all: () => true,
  running: (r) => ["thinking", "running", "retrying"].includes(r.status),
  failed: (r) => r.failed,
  done: (r) => r.status === "ok",
};
const EMPTY = { all: "No rows.", running: "No row is active now.", failed: "No row has failed.", done: "No row is done yet." };
const WAITING = waitingRow(-1);

/** The first column that rows are sorted by; so are all behind it. */
const FIRST_SORTED = 3;
const UNIT_S = { h: 3600, min: 60, s: 1, ms: 0.001 };

/** What a row is sorted by: a number, or its status, failures by their kind; null where there is nothing. */
function sortKey(row, field) {
  const text = row?.[field];
  if (!text || text === "?") return null;
  if (field === "status") return row.failed ? `!${row.text}` : text;
  if (field !== "latency_s") return /\d/.test(text) ? Number(text.replace(/[^\d.]/g, "")) : null;
  return [...text.matchAll(/([\d.]+) (h|min|ms|s)/g)].reduce((sum, [, n, unit]) => sum + n * UNIT_S[unit], 0);
}

/** hooks: open(row) a row was chosen, visible(first, last) rows came into sight. */
function makeTable(hooks) {
  const data = { n: 0, rows: [], prompts: [], labels: null, pictures: {}, ended: [], list: null, last: 0, labelChars: 4, sharedPrefix: "" };
  /** Rows behind the first `n`: the page has those in progress and those that failed. */
  const behind = new Set();
  let [fit, rowPx] = ["", 28];
  Object.assign(data, { order: "input", filter: "all", follow: true, chosen: -1, find: "", by: 0, down: true });
  const node = make("div", "hn-table");
  const bar = make("div", "hn-bar", null, { role: "toolbar", "aria-label": t("Rows to show") });
  const gridRole = { role: "grid", tabindex: "0", "aria-label": t("Rows of the run"), "aria-colcount": COLUMNS.length };
  const scroller = make("div", "hn-scroll", null, gridRole);
  const head = make("div", "hn-row hn-heads", null, { role: "row", "aria-rowindex": "1" });
  const sizer = make("div", "hn-sizer", null, { role: "rowgroup" });
  const empty = make("div", "hn-empty");
  const kind = (name) => `hn-cell hn-col-${name || "row"}${TEXTS.includes(name) ? "" : " n"}`;
  const heads = COLUMNS.map((name, column) => {
    const sorted = column >= FIRST_SORTED;
    const headRole = { role: "columnheader", "aria-colindex": column + 1, ...(name ? {} : { "aria-label": t("Row") }) };
    const word = name && t(name);
    const cell = make("div", kind(name), sorted ? null : word, headRole);
    if (sorted) cell.append(button("hn-sort", word, () => sort(column), { title: t("Sort by {column}", { column: name }) }));
    head.append(cell);
    return cell;
  });
  scroller.append(head, sizer, empty);

  const tabs = {};
  const [filters, tools] = [make("div", "hn-group"), make("div", "hn-group hn-tools")];
  for (const [name, word, glyph] of [["all", "All"], ["running", "Active", "…"], ["done", "Done", "✓"], ["failed", "Failed", "!"]]) {
    const count = make("span", "hn-count", "0");
    const tab = button(`hn-tab hn-tab-${name}`, null, () => pick({ filter: name }), { "aria-pressed": "false", title: t(word) });
    tab.append(make("span", glyph ? "hn-spare" : "", `${t(word)} `), make("span", "hn-short", glyph, { "aria-hidden": "true" }), count);
    tabs[name] = { tab, count };
    filters.append(tab);
  }
  const turnOrder = () => pick({ order: data.order === "newest" ? "input" : "newest", by: 0 });
  const newest = button("hn-tab", t("Newest"), turnOrder, { "aria-pressed": "false", title: t("Newest first") });
  newest.append(make("span", "hn-spare", " " + t("first")));
  const turnFollow = () => pick({ follow: !data.follow, ...(data.follow ? {} : { by: 0, find: (find.value = "") }) });
  const followTitle = t("Keep rows in progress in view");
  const follow = button("hn-tab", t("Follow"), turnFollow, { "aria-pressed": "true", title: followTitle });
  const findLabel = t("Find rows by prompt, answer or label");
  const find = make("input", "hn-find", null, { type: "search", placeholder: t("Find"), "aria-label": findLabel });
  find.addEventListener("input", () => pick({ find: find.value.trim().toLowerCase(), follow: false }));
  tools.append(find, newest, follow);
  bar.append(filters, tools);
  const shared = make("div", "hn-shared");
  const beginning = make("span", null, "", { dir: "auto" });
  shared.append(t("All prompts begin:"), " ", beginning);
  const listed = make("div", "hn-shared");
  node.append(bar, shared, listed, scroller);
  /** Takes the columns that the width has room for. Returns whether they are others. */
  function setFit() {
    const width = node.clientWidth;
    const [name, , px] = FITS.find(([, upTo]) => width < upTo);
    if (!width || fit === name) return false;
    [fit, rowPx] = [node.dataset.fit = name, px];
    return true;
  }
  const resized = new ResizeObserver(() => setFit() && data.n && paint());
  resized.observe(node);

  function pick(change) {
    Object.assign(data, change);
    data.list = null;
    if (change.filter || change.order || "find" in change || "by" in change) scroller.scrollTop = 0;
    paint();
  }

  /** First the largest, then the smallest, then as it came. */
  function sort(column) {
    if (data.by !== column) pick({ by: column, down: column !== 3, follow: false });
    else pick(data.down === (column !== 3) ? { by: column, down: !data.down } : { by: 0 });
  }

  function matches(row) {
    const prompt = `${data.sharedPrefix} ${data.prompts[row] ?? ""}`;
    const text = `${data.labels?.[row] ?? row}\n${prompt}\n${line(row).text}\n${line(row).status}`;
    return text.toLowerCase().includes(data.find);
  }

  /** Rows by a column; those that have nothing there come last. */
  function ordered(rows) {
    const key = new Map(rows.map((r) => [r, sortKey(data.rows[r], COLUMNS[data.by])]));
    const turn = data.down ? -1 : 1;
    return rows.sort((a, b) => {
      const [x, y] = [key.get(a), key.get(b)];
      return x === null || y === null ? (x === null) - (y === null) : x < y ? -turn : x > y ? turn : a - b;
    });
  }

  /** Room for the longest label seen, within bounds: an index may be words, or a row's route. */
  function widen(labels) {
    const most = labels.reduce((a, l) => Math.max(a, l.length), data.labelChars);
    if (most === data.labelChars) return;
    data.labelChars = most;
    node.style.setProperty("--hn-label", `${Math.min(170, 15 + 7 * most)}px`);
  }

  function line(row) {
    return data.rows[row] ?? WAITING;
  }

  function list() {
    if (data.list) return data.list;
    const keep = FILTERS[data.filter];
    let rows = data.order === "newest" ? [...data.ended].reverse() : null;
    if (data.order === "newest") {
      for (const i of numbers().reverse()) if (FILTERS.running(line(i))) rows.unshift(i);
    } else {
      rows = numbers();
    }
    if (data.filter !== "all") rows = rows.filter((r) => keep(line(r)));
    if (data.find) rows = rows.filter(matches);
    if (data.by) rows = ordered(rows);
    return (data.list = rows);
  }

  function numbers() {
    return [...Array.from({ length: data.n }, (_, i) => i), ...[...behind].sort((a, b) => a - b)];
  }

  /** Whether the page goes on with a row; one behind the listed ones leaves with its answer. */
  function keeps(row) {
    if (row.row < data.n) return true;
    const [had, has] = [behind.has(row.row), row.failed || FILTERS.running(row)];
    if (had !== has) data.list = null;
    if (has) return Boolean(behind.add(row.row));
    behind.delete(row.row);
    for (const kept of [data.rows, data.prompts, data.labels ?? []]) delete kept[row.row];
    return false;
  }

  const pool = [];
  function element(i) {
    if (pool[i]) return pool[i];
    const row = make("div", "hn-row", null, { role: "row" });
    const cells = COLUMNS.map((name, c) => make("div", kind(name), "", { role: "gridcell", "aria-colindex": c + 1 }));
    cells[1].append(make("span", "hn-asked"));
    cells[2].append(make("span", "hn-said"));
    cells[3].append(make("span", "hn-state"));
    const glyph = make("span", "hn-glyph", "", { "aria-hidden": "true" });
    const words = cells.map((c) => c.firstChild ?? c);
    cells[3].prepend(glyph);
    for (const c of [1, 2]) words[c].dir = "auto";
    row.append(...cells);
    row.addEventListener("click", () => choose(row.index, true));
    sizer.append(row);
    return (pool[i] = Object.assign(row, { words, glyph, picture: null, index: -1 }));
  }

  function fill(node, place, row) {
    const { status, cached, text, tokens_in, tokens_out, cost, latency_s, attempts, score } = line(row);
    node.index = row;
    node.style.transform = `translateY(${place * rowPx}px)`;
    const name = `hn-row hn-is-${status}${cached ? " hn-is-cached" : ""}${row === data.chosen ? " hn-chosen" : ""}`;
    if (node.className !== name) node.className = name;
    node.setAttribute("aria-rowindex", place + 2);
    node.setAttribute("aria-selected", row === data.chosen);
    node.id = `${data.id}-${row}`;
    const state = [status, attempts > 1 && `×${attempts}`, cached && t("cached"), score && t("score {score}", { score })].filter(Boolean).join(" ");
    const texts = [data.labels?.[row] ?? String(row), data.prompts[row] ?? "…", text, state, tokens_in, tokens_out, cost, latency_s];
    texts.forEach((t, c) => say(node.words[c], t));
    setPicture(node, data.pictures[row] ?? "");
    say(node.glyph, GLYPHS[status] ?? "");
    if (node.glyph.parentNode.title !== state) node.glyph.parentNode.title = state;
  }

  function setPicture(node, address) {
    if (address && !node.picture) node.words[1].before((node.picture = make("img", "hn-picture", null, { alt: "" })));
    if (address && node.picture.src !== address) node.picture.src = address;
    if (node.picture) show(node.picture, address !== "");
  }

  function paint() {
    if (!fit) setFit(); // later, and the first rows would be laid out twice
    const rows = list();
    const height = rows.length * rowPx;
    if (sizer.style.height !== `${height}px`) sizer.style.height = `${height}px`;
    if (data.follow) toNewest(rows);
    const first = Math.max(0, Math.floor(scroller.scrollTop / rowPx) - 2);
    const last = Math.min(rows.length, first + Math.ceil((scroller.clientHeight || 300) / rowPx) + 4);
    for (let place = first; place < last; place++) fill(element(place - first), place, rows[place]);
    for (let i = 0; i < pool.length; i++) show(pool[i], i < last - first);
    show(empty, rows.length === 0);
    say(empty, t(data.n === 0 ? EMPTY.all : data.find ? "No matching rows." : EMPTY[data.filter]));
    scroller.setAttribute("aria-rowcount", rows.length + 1);
    for (const [name, { tab }] of Object.entries(tabs)) tab.setAttribute("aria-pressed", name === data.filter);
    const direction = data.down ? "descending" : "ascending";
    heads.forEach((cell, c) => c >= FIRST_SORTED && cell.setAttribute("aria-sort", data.by === c ? direction : "none"));
    newest.setAttribute("aria-pressed", data.order === "newest");
    follow.setAttribute("aria-pressed", data.follow);
    if (rows.length && data.order === "input" && data.filter === "all" && !data.find && !data.by) hooks.visible(first, last);
  }

  /** Scroll so that the rows being answered are in sight. */
  function toNewest(rows) {
    let top = 0;
    if (data.order === "input") {
      const room = scroller.clientHeight - HEADS_PX;
      const place = rows.findLastIndex((row) => row <= data.last); // itself it may have left the table
      top = Math.max(0, (place + 2) * rowPx - room);
    }
    if (Math.abs(scroller.scrollTop - top) > 1) scroller.scrollTop = top;
  }

  function choose(row, open) {
    if (row < 0 || (row >= data.n && !behind.has(row))) return;
    data.chosen = row;
    data.follow = false;
    const place = list().indexOf(row);
    if (place >= 0) {
      const [top, bottom] = [place * rowPx, (place + 1) * rowPx + HEADS_PX];
      if (top < scroller.scrollTop) scroller.scrollTop = top;
      if (bottom > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = bottom - scroller.clientHeight;
    }
    paint();
    scroller.setAttribute("aria-activedescendant", `${data.id}-${row}`);
    if (open) hooks.open(row);
  }

  scroller.addEventListener("scroll", () => requestAnimationFrame(paint));
  // Whoever scrolls wants to read: the table stays where it is then.
  for (const by of ["wheel", "touchmove", "pointerdown"]) scroller.addEventListener(by, () => (data.follow = false), { passive: true });
  scroller.addEventListener("keydown", (event) => {
    if (event.target !== scroller) return; // a head's own button
    const rows = list();
    const page = Math.max(1, Math.floor(scroller.clientHeight / rowPx) - 1);
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -rows.length, End: rows.length }[event.key];
    if (step !== undefined && rows.length) {
      const here = rows.indexOf(data.chosen);
      choose(rows[Math.max(0, Math.min(rows.length - 1, here < 0 ? 0 : here + step))], false);
    } else if ((event.key === "Enter" || event.key === " ") && data.chosen >= 0) hooks.open(data.chosen);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  return {
    node,
    paint,
    chosen: () => data.chosen,
    /** The rows that the filter and the search leave, in the order in which they are shown. */
    listed: () => list(),
    row: (i) => {
      const prompt = `${data.sharedPrefix} ${data.prompts[i] ?? ""}`.trimStart();
      return { label: data.labels?.[i] ?? String(i), prompt, line: data.rows[i] ?? waitingRow(i) };
    },
    choose,
    close: () => resized.disconnect(),
    reset(n, id, sharedPrefix, window) {
      behind.clear();
      delete node.dataset.pictured;
      say(listed, window);
      show(listed, window !== "");
      say(beginning, sharedPrefix);
      show(shared, sharedPrefix !== "");
      Object.assign(data, { n, id, sharedPrefix, rows: [], prompts: [], labels: null, pictures: {}, ended: [], list: null, last: 0 });
    },
    /** rows: decoded; ranges: PromptRange; head: Head; pictures: [row, address]. */
    update(rows, ranges, head, pictures = []) {
      for (const [row, address] of pictures) data.pictures[row] = address;
      if (pictures.length) node.dataset.pictured = ""; // a row without one leaves its room
      for (const { first, labels, prompts } of ranges) {
        if (labels && !data.labels) data.labels = [];
        prompts.forEach((p, i) => (data.prompts[first + i] = p));
        labels?.forEach((l, i) => (data.labels[first + i] = l));
        widen(labels ?? []);
      }
      for (const row of rows.filter(keeps)) {
        const before = line(row.row);
        data.rows[row.row] = row;
        if (FILTERS.running(row)) data.last = Math.max(data.last, row.row);
        else if (before.status !== row.status) data.ended.push(row.row);
        if (data.order === "newest" || data.filter !== "all" || data.find || data.by) data.list = null;
      }
      const { n, in_flight, ok, failed } = head;
      say(tabs.all.count, n.toLocaleString("en"));
      say(tabs.running.count, in_flight.toLocaleString("en"));
      say(tabs.done.count, ok.toLocaleString("en"));
      say(tabs.failed.count, failed.toLocaleString("en"));
      tabs.failed.tab.classList.toggle("hn-bad", failed > 0);
    },
  };
}
