// A widget without a face: it tells the page to insert a cell, and the kernel where it is shown and what has come.

function render({ model, el }) {
  el.style.display = "none";
  const take = (message) => {
    // By now the page has sent what it held back while the kernel was busy.
    if (message.kind === "typed") model.send({ cmd: "typed", press: message.press });
    if (message.kind !== "insert") return;
    // Whoever can insert a cell (holynb's extension of JupyterLab) takes the event.
    const event = new CustomEvent("holynb:insert", { detail: { source: message.source }, cancelable: true });
    model.send({ cmd: "inserted", done: !window.dispatchEvent(event) });
  };
  model.on("msg:custom", take);
  model.send({ cmd: "where", notebook: Boolean(document.body.dataset.notebook) });
  return () => model.off("msg:custom", take);
}

export default { render };
