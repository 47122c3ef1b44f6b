// holynb in JupyterLab and Notebook 7: %%infer bodies shown as Markdown, a side panel, commands. Written by hand: a module federation
// container is an object with init and get, and everything it needs is shared by the page. Everything of holynb works without this file.
(() => {
  "use strict";
  let scope;

  /** A package that the page shares. */
  async function shared(name) {
    const versions = scope[name];
    if (!versions) throw new Error(`holynb: this page does not share ${name}`);
    return (await Object.values(versions)[0].get())();
  }

  const PROSE = "text/x-ipythongfm";
  const PLAIN = "text/plain"; // for several prompts: a line of text above --- would be a heading in Markdown
  const DIVIDED = /\S[^\n]*\n---[ \t]*(\n|$)/;
  const HEAD = /^\s*%%(infer|holynb)(\s|$)/;
  const LOAD = 'get_ipython().extension_manager.load_extension("holynb");'; // like %load_ext, and silent where it is loaded
  const ICON =
    '<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24"><path class="jp-icon3" fill="#616161" d="M3 5h8v2H3zm0 5h6v2H3zm0 5h8v2H3zm17.5-9L23 8.5l-6.5 8-3-3L12 15.5 10.5 14l3-4 3 3z"/></svg>';

  /** A prompt is not Python: an apostrophe in it opens no string. */
  function dress(panel, cell, seen) {
    const model = cell.model;
    if (model.type !== "code" || seen.has(model)) return;
    seen.add(model);
    const fit = () => {
      const source = model.sharedModel.getSource();
      const kind = !HEAD.test(source) ? panel.content.codeMimetype : DIVIDED.test(source) ? PLAIN : PROSE;
      const worn = model.mimeType;
      if (kind !== worn && (HEAD.test(source) || worn === PROSE || worn === PLAIN)) model.mimeType = kind;
    };
    model.contentChanged.connect(fit);
    model.mimeTypeChanged.connect(fit);
    fit();
  }

  function prose(tracker) {
    const watch = (_, panel) => {
      const seen = new WeakSet();
      const all = () => panel.content.widgets.forEach((cell) => dress(panel, cell, seen));
      panel.context.ready.then(() => {
        all();
        panel.content.model?.cells.changed.connect(() => requestAnimationFrame(all));
      });
    };
    tracker.forEach((panel) => watch(null, panel));
    tracker.widgetAdded.connect(watch);
  }

  /** A code cell below the active one of the notebook in front. Returns whether there is one. */
  function insert(tracker, source) {
    const panel = tracker.currentWidget;
    if (!panel?.content.model) return false;
    const index = panel.content.activeCellIndex + 1;
    panel.content.model.sharedModel.insertCell(index, { cell_type: "code", source });
    panel.content.activeCellIndex = index;
    return true;
  }

  /** Tabs of the side panel: the one whose content shows is marked, and arrow keys go from one to the next. */
  function tabs(words, open) {
    const list = document.createElement("div");
    list.setAttribute("role", "tablist");
    list.setAttribute("aria-label", "holynb");
    list.style.cssText = "display:flex;gap:2px;border-bottom:1px solid var(--jp-border-color1)";
    const buttons = Object.entries(words).map(([word, label]) => {
      const button = document.createElement("button");
      button.id = `holynb-side-${word}`;
      button.setAttribute("role", "tab");
      button.setAttribute("aria-controls", "holynb-side-content");
      button.textContent = label;
      button.style.cssText = "border:0;background:none;color:var(--jp-ui-font-color1);font:inherit;padding:6px 12px;cursor:pointer";
      button.addEventListener("click", () => open(word));
      list.append(button);
      return button;
    });
    list.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const at = buttons.indexOf(document.activeElement);
      if (step && at >= 0) buttons[(at + step + buttons.length) % buttons.length].focus();
    });
    const mark = (word) =>
      buttons.forEach((button, i) => {
        const chosen = button.id === `holynb-side-${word}`;
        button.setAttribute("aria-selected", String(chosen));
        button.tabIndex = chosen || (!word && i === 0) ? 0 : -1;
        button.style.fontWeight = chosen ? "600" : "400";
        button.style.boxShadow = chosen ? "inset 0 -3px 0 var(--jp-brand-color1)" : "none";
      });
    mark("");
    return { list, mark };
  }

  function sidePanel(tracker, { Panel, Widget }, { SimplifiedOutputArea, OutputAreaModel }, { LabIcon }) {
    const side = new Panel();
    side.id = "holynb-side";
    side.title.caption = "holynb";
    side.title.icon = new LabIcon({ name: "holynb:icon", svgstr: ICON });
    side.node.style.cssText += "overflow:auto;padding:4px 8px 8px;min-width:400px;background:var(--jp-layout-color1);font-size:13px";
    const bar = new Widget();
    const says = document.createElement("div");
    says.setAttribute("role", "status");
    says.style.cssText = "padding:6px 2px;color:var(--jp-ui-font-color1)";
    let area = null;
    const open = (word) => {
      const panel = tracker.currentWidget;
      says.textContent = panel ? "" : "Open a notebook first: its kernel does the work.";
      if (!panel) return;
      mark(word);
      area?.dispose();
      area = new SimplifiedOutputArea({ model: new OutputAreaModel({ trusted: true }), rendermime: panel.content.rendermime });
      area.node.id = "holynb-side-content";
      area.node.setAttribute("role", "tabpanel");
      area.node.setAttribute("aria-labelledby", `holynb-side-${word}`);
      side.addWidget(area);
      const code = `${LOAD}\n%infer ${word}`;
      const asked = SimplifiedOutputArea.execute(code, area, panel.sessionContext, { cellId: "holynb-side", deletedCells: [] });
      asked.catch((error) => (says.textContent = String(error.message ?? error)));
    };
    const { list, mark } = tabs({ dash: "Dashboard", panel: "Ask" }, open);
    bar.node.append(list, says);
    side.addWidget(bar);
    return { side, open };
  }

  function activate(app, tracker, palette, parts) {
    prose(tracker);
    window.addEventListener("holynb:insert", (event) => {
      if (insert(tracker, event.detail.source)) event.preventDefault();
    });
    const { side, open } = sidePanel(tracker, ...parts);
    app.shell.add(side, "right", { rank: 900 });
    const run = (source) => {
      tracker.currentWidget?.sessionContext.session?.kernel?.requestExecute({ code: LOAD, silent: true, store_history: false });
      return insert(tracker, source) && app.commands.execute("notebook:run-cell");
    };
    const commands = {
      "holynb:cell": ["Insert a %%infer cell", () => insert(tracker, "%%infer \n")],
      "holynb:panel": ["Panel: ask without typing a magic", () => run("%infer panel")],
      "holynb:dashboard": ["Dashboard in the side panel", () => (app.shell.activateById(side.id), open("dash"))],
      "holynb:replay": ["Play a recorded run", () => run("%infer show --replay flaky")],
    };
    for (const [id, [label, execute]] of Object.entries(commands)) {
      app.commands.addCommand(id, { label, execute });
      palette?.addItem({ command: id, category: "holynb" });
    }
  }

  async function extension() {
    const [notebook, apputils, ...parts] = await Promise.all(
      ["@jupyterlab/notebook", "@jupyterlab/apputils", "@lumino/widgets", "@jupyterlab/outputarea", "@jupyterlab/ui-components"].map(shared),
    );
    const plugin = {
      id: "holynb:plugin",
      description: "%%infer cells as prose, a side panel, commands.",
      autoStart: true,
      requires: [notebook.INotebookTracker],
      optional: [apputils.ICommandPalette],
      activate: (app, tracker, palette) => activate(app, tracker, palette, parts),
    };
    return () => ({ __esModule: true, default: plugin });
  }

  (window._JUPYTERLAB ??= {}).holynb = {
    init: (shareScope) => {
      scope = shareScope;
    },
    get: (module) => (module === "./extension" ? extension() : Promise.reject(new Error(`holynb has no ${module}`))),
  };
})();
