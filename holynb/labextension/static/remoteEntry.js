// holynb in JupyterLab and Notebook 7: %%infer bodies shown as prose, the kernel's end told to views, a side panel, commands. Written by hand: a module federation
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

  /** [what is marked in a prompt, how]: Jinja's comments, blocks and values, each within a line. */
  const MARKS = [[/\{#.*?#\}/, "comment"], [/\{%.*?%\}/, "keyword"], [/\{\{.*?\}\}/, "variable"]];

  /** Marks in the prompts of %%infer cells, as an extension of every editor; nothing in other cells. */
  function templateMarks({ Decoration, EditorView, MatchDecorator, ViewPlugin }) {
    const looks = MARKS.map(([, name]) => Decoration.mark({ class: `holynb-${name}` }));
    const decorator = new MatchDecorator({
      regexp: new RegExp(MARKS.map(([pattern]) => `(${pattern.source})`).join("|"), "g"),
      decoration: (match) => looks[match.slice(1).findIndex((found) => found != null)],
    });
    const isPrompt = (view) => HEAD.test(view.state.doc.sliceString(0, 200).trimStart());
    const plugin = ViewPlugin.fromClass(
      class {
        constructor(view) {
          this.decorations = isPrompt(view) ? decorator.createDeco(view) : Decoration.none;
        }
        update(update) {
          if (!update.docChanged && !update.viewportChanged) return;
          const before = this.decorations;
          if (!isPrompt(update.view)) this.decorations = Decoration.none;
          else this.decorations = before.size ? decorator.updateDeco(update, before) : decorator.createDeco(update.view);
        }
      },
      { decorations: (plugin) => plugin.decorations },
    );
    const theme = EditorView.baseTheme({
      ".holynb-variable, .holynb-variable *": { color: "var(--jp-mirror-editor-variable-2-color, #05a) !important", fontWeight: "600" },
      ".holynb-keyword, .holynb-keyword *": { color: "var(--jp-mirror-editor-keyword-color, #008000) !important", fontWeight: "600" },
      ".holynb-comment, .holynb-comment *": { color: "var(--jp-mirror-editor-comment-color, #408080) !important", fontStyle: "italic" },
    });
    return [plugin, theme];
  }

  /** Charts that were drawn side by side stay as wide, and scroll: as in ui/output/static.py, whose style sheet a notebook that is not trusted does not keep. */
  const ground = (angle, at) => `linear-gradient(${angle}deg,var(--jp-layout-color0) 40%,transparent) ${at} 0/40px 100% no-repeat local`;
  const shade = (angle, at) => `linear-gradient(${angle}deg,#808080a0,transparent) ${at} 0/14px 100% no-repeat scroll`;
  const WIDE_CHARTS =
    ".jp-OutputArea-child:has(>.jp-RenderedPlotly [class*=traceholynb-wide]){overflow-x:auto;background:" +
    [ground(90, "0"), ground(270, "100%"), shade(90, "0"), shade(270, "100%")].join(",") +
    "}.jp-OutputArea-child>.jp-RenderedPlotly:has([class*=traceholynb-wide]){min-width:720px}";

  /** What views listen to (ui/assets/connection.js): their kernel was restarted, shut down, has died, is out of reach, or is there again. */
  function watchKernels(tracker, inside) {
    const tell = (panel, state) => {
      for (const node of [...panel.content.widgets.map((cell) => cell.node), ...inside(panel)]) // a cell out of sight may not be in the page
        node.querySelectorAll(".hn-watched").forEach((view) => view.dispatchEvent(new CustomEvent("holynb:kernel", { detail: state })));
    };
    const said = { restarting: "restarted", autorestarting: "restarted", dead: "dead", terminating: "shut" };
    const watch = (_, panel) => {
      const context = panel.sessionContext;
      context.statusChanged.connect((_, status) => said[status] && tell(panel, said[status]));
      context.connectionStatusChanged.connect((_, status) => tell(panel, status === "connected" ? "connected" : "lost"));
      context.kernelChanged.connect((_, { oldValue, newValue }) => oldValue && tell(panel, newValue ? "restarted" : "shut"));
    };
    window.holynbTells = (view) => Boolean(view.closest(".jp-NotebookPanel, #holynb-side"));
    tracker.forEach((panel) => watch(null, panel));
    tracker.widgetAdded.connect(watch);
    // A widget whose kernel is gone says "model not found"; the sentence beside it says more (ui/live/standin.py).
    const style = document.createElement("style");
    const gone = ".jp-OutputArea-child:not(:has(>.jp-OutputArea-output>.lm-Widget))";
    style.textContent = `${gone}:has(+.jp-OutputArea-child .holynb-standin){display:none}${WIDE_CHARTS}`;
    document.head.append(style);
  }

  /** Asks which recording to play: one that ships, or a file. Resolves to the arguments of `%infer show`, "" where it is cancelled. */
  async function chooseRecording({ Dialog, showDialog }, Widget, kernel) {
    const code = "__import__('holynb.ui.live.recording', fromlist=['shipped']).shipped()";
    const asked = kernel?.requestExecute({ code: "", silent: true, store_history: false, user_expressions: { names: code } }).done;
    const late = new Promise((resolve) => setTimeout(resolve, 2000)); // a kernel that is busy does not answer
    const reply = await Promise.race([asked, late]);
    const names = reply?.content?.user_expressions?.names?.data?.["text/plain"]?.match(/[\w-]+/g) ?? [];
    const body = new Widget();
    const [choice, file] = [document.createElement("select"), document.createElement("input")];
    for (const name of [...names, ""]) choice.append(new Option(name || "a file …", name));
    for (const [field, label] of [[choice, "Recording"], [file, "File (.jsonl.gz), as the kernel finds it"]]) {
      const line = document.createElement("label");
      field.className = "jp-mod-styled";
      line.style.cssText = "display:block;margin-bottom:8px";
      line.append(label, document.createElement("br"), field);
      body.node.append(line);
    }
    const fit = () => (file.parentElement.hidden = choice.value !== "");
    choice.addEventListener("change", fit);
    fit();
    body.getValue = () => choice.value || file.value.trim();
    const buttons = [Dialog.cancelButton(), Dialog.okButton({ label: "Play" })];
    const { button, value } = await showDialog({ title: "Play a recorded run", body, buttons });
    return button.accept && value ? `show --replay "${value.replace(/["\\]/g, "\\$&")}"` : "";
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
    let area = null, source = null;
    const open = (word) => {
      const panel = tracker.currentWidget;
      says.textContent = panel ? "" : "Open a notebook first: its kernel does the work.";
      if (!panel) return;
      mark(word);
      area?.dispose();
      source = panel;
      area = new SimplifiedOutputArea({ model: new OutputAreaModel({ trusted: true }), rendermime: panel.content.rendermime });
      area.node.id = "holynb-side-content";
      area.node.setAttribute("role", "tabpanel");
      area.node.setAttribute("aria-labelledby", `holynb-side-${word}`);
      side.addWidget(area);
      const code = `${LOAD}\n%infer ${word}`;
      const asked = SimplifiedOutputArea.execute(code, area, panel.sessionContext, { cellId: "holynb-side", deletedCells: [] });
      asked.catch((error) => (says.textContent = String(error.message ?? error)));
    };
    const { list, mark } = tabs({ dash: "Dashboard", panel: "Panel" }, open);
    bar.node.append(list, says);
    side.addWidget(bar);
    /** What shows the work of this notebook's kernel. */
    const inside = (panel) => (panel === source ? [side.node] : []);
    return { side, open, inside };
  }

  function activate(app, tracker, { palette, editors }, { apputils, codemirror, view, parts }) {
    prose(tracker);
    if (editors && view) {
      const extension = codemirror.EditorExtensionRegistry.createImmutableExtension(templateMarks(view));
      editors.addExtension({ name: "holynb:marks", factory: () => extension });
    }
    window.addEventListener("holynb:insert", (event) => {
      if (insert(tracker, event.detail.source)) event.preventDefault();
    });
    const { side, open, inside } = sidePanel(tracker, ...parts);
    watchKernels(tracker, inside);
    app.shell.add(side, "right", { rank: 900 });
    const beside = (words) => words && (app.shell.activateById(side.id), open(words));
    const run = (source) => {
      tracker.currentWidget?.sessionContext.session?.kernel?.requestExecute({ code: LOAD, silent: true, store_history: false });
      return insert(tracker, source) && app.commands.execute("notebook:run-cell");
    };
    const kernel = () => tracker.currentWidget?.sessionContext.session?.kernel;
    const commands = {
      "holynb:cell": ["Insert a %%infer cell", () => insert(tracker, "%%infer \n")],
      "holynb:panel": ["Open the panel: ask without typing a magic", () => run("%infer panel")],
      "holynb:dashboard": ["Open the dashboard in the side panel", () => beside("dash")],
      "holynb:replay": ["Play a recorded run", async () => beside(await chooseRecording(apputils, parts[0].Widget, kernel()))],
    };
    for (const [id, [label, execute]] of Object.entries(commands)) {
      app.commands.addCommand(id, { label, execute });
      palette?.addItem({ command: id, category: "holynb: infer" }); // the palette searches categories too
    }
  }

  async function extension() {
    const [notebook, apputils, ...parts] = await Promise.all(
      ["@jupyterlab/notebook", "@jupyterlab/apputils", "@lumino/widgets", "@jupyterlab/outputarea", "@jupyterlab/ui-components"].map(shared),
    );
    // Only the marks in prompts need these: a page without them has no marks.
    const [codemirror, view] = await Promise.all(["@jupyterlab/codemirror", "@codemirror/view"].map((name) => shared(name).catch(() => null)));
    const plugin = {
      id: "holynb:plugin",
      description: "%%infer cells as prose, the kernel's end told to views, a side panel, commands.",
      autoStart: true,
      requires: [notebook.INotebookTracker],
      optional: [apputils.ICommandPalette, codemirror?.IEditorExtensionRegistry].filter(Boolean),
      activate: (app, tracker, palette, editors) => activate(app, tracker, { palette, editors }, { apputils, codemirror, view, parts }),
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
