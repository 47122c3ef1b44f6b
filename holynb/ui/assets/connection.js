// Whether the kernel behind a widget can be reached. Where holynb's extension of JupyterLab is, it passes on the front end's own word
// (holynb:kernel); elsewhere a kernel that has not spoken for 15 s is taken for silent, until it speaks again.

const SILENT_S = 15;
/** What is said of the kernel. Of the first three there is no way back. */
const KERNEL = {
  restarted: "The kernel was restarted.",
  shut: "The kernel was shut down.",
  dead: "The kernel has died.",
  lost: "No connection to the kernel: what is shown may be old.",
  silent: "No word from the kernel for {n} s: it is busy, or gone.",
};

/** Watches for the widget that is drawn in `root`. changed(gone): buttons of `root` are out of reach already. */
function makeConnection(root, changed = () => {}) {
  const node = make("div", "hn-kernel", "", { role: "alert", hidden: "" });
  const [what, command, then] = [make("b"), make("code"), make("span")];
  const cell = button("hn-button", t("Insert the command"), () => announce("holynb:insert", { source: command.textContent }));
  const hides = document.createElement("style"); // the sentence that stands in for this widget
  let state = "", standin = "", missed = 0, expected = false, doubted = false;
  cell.dataset.local = "";
  node.append(what, " ", command, then, " ", cell);
  root.classList.add("hn-watched");

  const announce = (name, detail) => !window.dispatchEvent(new CustomEvent(name, { detail, cancelable: true }));
  const final = () => ["restarted", "shut", "dead"].includes(state);
  /** Whether the front end will say how the kernel is. After a lost connection nobody knows whose kernel answers. */
  const told = () => !doubted && Boolean(window.holynbTells?.(root));

  function become(next) {
    if (next === state) return;
    state = next;
    root.dataset.kernel = state;
    if (!state) delete root.dataset.kernel;
    say(what, state && t(KERNEL[state], { n: SILENT_S }));
    show(node, state !== "");
    show(cell, Boolean(command.textContent && window.holynbTells?.(root)));
    for (const each of root.querySelectorAll("button:not([data-local])")) {
      if (state && !each.disabled) [each.disabled, each.dataset.held] = [true, ""];
      else if (!state && "held" in each.dataset) [each.disabled] = [false, delete each.dataset.held];
    }
    changed(state !== "");
  }

  /** A copy of this notebook keeps its sentence: it is hidden in the outputs of one cell, where the page is JupyterLab's. */
  const mark = () => root.closest(".jp-OutputArea")?.classList.add(`holynb-beside-${standin}`);

  root.addEventListener("holynb:kernel", ({ detail }) => {
    if (detail === "connected") {
      doubted ||= state === "lost";
      if (state === "lost") become("");
    } else if (detail in KERNEL && (!final() || detail === "restarted")) become(detail);
  });
  const beat = setInterval(() => {
    mark();
    if (expected && !final() && state !== "lost" && !told() && ++missed >= SILENT_S) become("silent");
  }, 1000);

  return {
    node,
    told,
    /** again: the command that helps once the kernel is gone, `then` what it does. standin: the id of the sentence that stands in. */
    begin({ again, then: does, standin: id }) {
      say(command, again);
      say(then, again ? ` ${does}.` : "");
      show(command, again !== "");
      standin = id;
      const sentence = document.querySelector(".jp-OutputArea") ? `.holynb-beside-${id} .jp-OutputArea-child:has(.holynb-standin-${id})` : `.holynb-standin-${id}`;
      hides.textContent = id ? `${sentence}{display:none}` : "";
      if (!hides.isConnected) document.head.append(hides);
      requestAnimationFrame(mark);
    },
    /** A message came. more: whether others must follow within seconds. */
    heard(more) {
      missed = 0;
      expected = more;
      if (state === "silent") become("");
    },
    close() {
      clearInterval(beat);
      hides.remove();
    },
  };
}
