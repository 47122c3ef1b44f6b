// The charts beside the table, drawn by uPlot. Columns come in buckets: from `first` on, all are replaced.

/** Chart → title, how values are written, lines: [column, name, colour, extra]. Memory's lines depend on its columns. */
const CHARTS = {
  cost: {
    title: "Cost", write: write.dollars,
    lines: [["cost", "this run", "--hn-c1", { fill: true }], ["as", "elsewhere", "--hn-c2", { dash: [4, 3] }]],
  },
  latency: {
    title: "Latency", write: write.seconds,
    lines: [["p50", "p50", "--hn-c1"], ["p95", "p95", "--hn-c2"], ["ttft", "TTFT", "--hn-c3"]],
  },
  rate: { title: "Tokens/s", write: write.count, lines: [["tokens", "this run", "--hn-c1", { fill: true }]] },
  server: {
    title: "Server", write: write.count,
    lines: [["running", "running", "--hn-c1", { fill: true }], ["waiting", "waiting", "--hn-c2"], ["KV %", "KV %", "--hn-c3"]],
  },
  memory: { title: "Memory", write: write.bytes, lines: null },
};
/** Column → what its abbreviation means, for whoever points at it; as in glosses.py. */
const GLOSSES = {
  p50: "half took no longer",
  p95: "95 % took no longer",
  ttft: "time to first token",
};
/** A chart of one dot, or of nothing spent, says nothing that its figure does not. */
const drawable = (values) => values?.filter((v) => v != null).length > 1;
const MARKS = [["429", "--hn-c2"], ["OOM", "--hn-c4"], ["recovered", "--hn-c3"]];
const MIN_OTHERS_SHARE = 0.02; // what others hold of a device is shown from this share of it on, as in series.py
const COLOURS = ["--hn-c1", "--hn-c3", "--hn-c5", "--hn-c6", "--hn-c2", "--hn-c4"];
const HEIGHT_PX = 84;

function makeCharts(asRoute) {
  const node = make("div", "hn-charts");
  const charts = {};
  let shown = [];
  const points = { width: 1, size: 0, columns: {} };
  for (const name of Object.keys(CHARTS)) {
    charts[name] = makeChart(name, node, asRoute);
    node.append(charts[name].node);
  }
  const redraw = () => Object.values(charts).forEach((c) => c.theme());
  const resized = new ResizeObserver(() => requestAnimationFrame(() => Object.values(charts).forEach((c) => c.fit())));
  resized.observe(node);
  const themed = new MutationObserver(redraw);
  themed.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name", "data-jp-theme-light", "class"] });

  return {
    node,
    reset: () => Object.assign(points, { size: 0, columns: {} }),
    simulated: (yes) => charts.cost.call(t(yes ? "Cost (simulated)" : "Cost")),
    /** newest: Points. */
    update(newest) {
      Object.assign(points, { width: newest.width, size: newest.size });
      for (const [chart, columns] of Object.entries(newest.charts)) {
        const mine = (points.columns[chart] ??= {});
        for (const [name, values] of Object.entries(columns)) mine[name] = [...(mine[name] ?? []).slice(0, newest.first), ...values];
      }
    },
    /** Gives those that have something to draw their room. */
    lay() {
      shown = Object.entries(charts).filter(([name, chart]) => chart.take(points.columns[name] ?? {}));
      show(node, shown.length > 0);
    },
    /** After `lay`: what is hidden has no width. */
    draw() {
      const xs = Array.from({ length: points.size }, (_, i) => (i + 1) * points.width);
      for (const [, chart] of shown) chart.paint(xs);
    },
    close() {
      resized.disconnect();
      themed.disconnect();
      Object.values(charts).forEach((c) => c.close());
    },
  };
}

function makeChart(name, parent, asRoute) {
  const spec = CHARTS[name];
  const node = make("figure", `hn-chart hn-chart-${name}`, null, { role: "img" });
  const caption = make("figcaption", "hn-caption");
  const legend = make("span", "hn-legend");
  const title = make("span", "hn-title", t(spec.title));
  caption.append(title, legend);
  const box = make("div", "hn-plot");
  node.append(caption, box);
  node.hidden = true;
  let plot = null, lines = [], data = [[]], columns = {}, signature = "";
  const colour = (v) => getComputedStyle(parent).getPropertyValue(v).trim() || "#888";

  function linesOf(columns) {
    if (spec.lines) {
      // Side by side, each route has a line of its own, named after it.
      const routes = Object.keys(columns).filter((c) => c.startsWith(`${name}|`));
      const own = routes.map((c, i) => [c, c.slice(name.length + 1), COLOURS[i % COLOURS.length]]);
      const drawn = [...own, ...spec.lines].filter(([c]) => drawable(columns[c]));
      if (name === "cost" && !drawn.some(([c]) => columns[c].some((v) => v > 0))) return [];
      if (name === "latency") say(title, t(own.length ? "Latency, p50" : spec.title));
      return drawn.map(([c, w, k, x]) => [c, c === "as" && asRoute ? t("as {route}", { route: asRoute }) : t(w), k, x]);
    }
    const devices = [...new Set(Object.keys(columns).filter((c) => c.includes("|")).map((c) => c.slice(0, c.lastIndexOf("|"))))];
    return devices.flatMap((device, i) => {
      const k = COLOURS[i % COLOURS.length];
      const alone = devices.length === 1;
      const ours = columns[`${device}|ours`] && [`${device}|ours`, alone ? t("{device}: ours", { device }) : device, k, { fill: alone }];
      const name = !ours ? device : alone ? t("all") : t("{device} all", { device });
      const allLine = [`${device}|all`, name, ours && alone ? "--hn-c0" : k, { dash: ours ? [3, 3] : undefined }];
      const all = (!ours || alone || shared(columns, device)) && allLine;
      const weights = alone && columns[`${device}|weights`] && [`${device}|weights`, t("weights"), "--hn-c5", { dash: [2, 2] }];
      return [ours, weights, all].filter((line) => line && drawable(columns[line[0]]));
    });
  }

  /** Whether others hold enough of a device beside ours to be drawn. */
  function shared(columns, device) {
    const [all, ours, total] = ["all", "ours", "total"].map((name) => columns[`${device}|${name}`] ?? []);
    return all.some((v, i) => v != null && ours[i] != null && v - ours[i] > MIN_OTHERS_SHARE * (total[i] || v));
  }

  function build() {
    plot?.destroy();
    const axis = { stroke: () => colour("--hn-ink"), font: "10px system-ui, sans-serif", ticks: { show: false }, gap: 3 };
    const grid = { stroke: () => colour("--hn-rule"), width: 1 };
    plot = new uPlot({
      width: Math.max(80, box.clientWidth), height: HEIGHT_PX, legend: { show: false }, padding: [8, 16, 0, 0],
      cursor: { y: false, points: { size: 5 }, drag: { setScale: false, x: false } },
      scales: {
        x: { time: false, range: (u, low, high) => [0, Math.max(high, 1)] },
        y: { range: (u, low, high) => [0, high > 0 ? high * 1.08 : 1] },
      },
      axes: [
        { ...axis, size: 18, space: 54, grid: { show: false }, values: (u, ticks) => ticks.map(write.clock) },
        {
          ...axis, size: (u, ticks) => 10 + 6 * Math.max(2, ...(ticks ?? []).map((t) => t?.length ?? 0)), space: 26, grid,
          values: (u, ticks) => ticks.map((v) => spec.write(v)),
        },
      ],
      series: [{}, ...lines.map(([, word, k, extra]) => ({
        label: word, width: extra?.dash ? 1 : 1.6, spanGaps: true, points: { show: false }, dash: extra?.dash,
        stroke: () => colour(k), fill: extra?.fill ? () => `color-mix(in srgb, ${colour(k)} 14%, transparent)` : undefined,
      }))],
      hooks: { draw: [marks], setCursor: [() => writeLegend()] },
    }, data, box);
  }

  /** 429s and OOMs: a small mark above the line, at the time they came. */
  function marks(u) {
    const ink = u.ctx;
    for (const [kind, k] of MARKS) {
      const column = columns[kind];
      if (!column) continue;
      ink.fillStyle = colour(k);
      column.forEach((v, i) => {
        if (!v || data[0][i] === undefined) return;
        const x = u.valToPos(data[0][i], "x", true), y = u.bbox.top, s = 3.5 * devicePixelRatio;
        ink.beginPath();
        ink.moveTo(x - s, y - s);
        ink.lineTo(x + s, y - s);
        ink.lineTo(x, y + s);
        ink.fill();
        ink.globalAlpha = 0.35;
        ink.fillRect(x - devicePixelRatio / 2, y, devicePixelRatio, u.bbox.height);
        ink.globalAlpha = 1;
      });
    }
  }

  /** What ours consists of, where the workers report it: weights, KV cache. */
  function split(device, i) {
    const values = [["weights", "weights"], ["kv", "KV"]].map(([key, word]) => [word, columns[`${device}|${key}`]?.[i]]);
    const parts = values.filter(([, v]) => v != null);
    return parts.length ? " (" + parts.map(([word, v]) => `${t(word)} ${spec.write(v)}`).join(", ") + ")" : "";
  }

  function writeLegend() {
    const at = plot?.cursor.idx;
    const labels = [];
    const chips = lines.filter(([, word]) => word).map(([column, word, k]) => {
      const values = columns[column];
      let i = at ?? values.length - 1;
      while (i > 0 && values[i] == null) i--;
      const total = columns[column.replace(/\|\w+$/, "|total")]?.findLast((v) => v != null);
      const value = values[i] == null ? "–" : spec.write(values[i]);
      const one = column.endsWith("|all") && total ? t("{n} of {total}", { n: value, total: write.bytes(total) }) : value;
      const parts = column.endsWith("|ours") ? split(column.slice(0, -5), i) : "";
      const text = `${word} ${one}${parts}`;
      labels.push(text);
      return [text, k, GLOSSES[column] ?? ""];
    });
    for (const [kind, k] of MARKS) {
      const times = (columns[kind] ?? []).reduce((a, v) => a + (v ?? 0), 0);
      if (times) chips.push([`${t(kind)} ×${times}`, k, ""]), labels.push(t("{n} times {kind}", { n: times, kind: t(kind) }));
    }
    while (legend.children.length > chips.length) legend.lastChild.remove();
    chips.forEach(([text, k, gloss], i) => {
      const chip = legend.children[i] ?? legend.appendChild(make("span", "hn-chip"));
      say(chip, text);
      chip.title = gloss && t(gloss);
      chip.style.setProperty("--hn-k", `var(${k})`);
    });
    node.setAttribute("aria-label", `${title.textContent}: ${labels.join(", ")}`);
  }

  return {
    node,
    /** The newest columns. Returns whether there is anything to draw. */
    take(newest) {
      columns = newest;
      lines = linesOf(columns);
      show(node, lines.length > 0);
      return lines.length > 0;
    },
    paint(xs) {
      data = [xs, ...lines.map(([c]) => columns[c])];
      const now = lines.map(([c]) => c).join();
      if (now !== signature || !plot) {
        signature = now;
        build();
      } else plot?.setData(data);
      writeLegend();
    },
    fit() {
      const width = box.clientWidth;
      if (plot && width && Math.abs(plot.width - width) > 1) plot.setSize({ width, height: HEIGHT_PX });
    },
    call: (text) => say(title, text),
    theme: () => plot?.redraw(false),
    close: () => plot?.destroy(),
  };
}
