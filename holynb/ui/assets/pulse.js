// A widget without a face while its kernel answers; then it says so, and the widgets beside it in their box cannot be used.

function render({ model, el }) {
  texts = model.get("texts");
  const root = make("div", "hn-pulse");
  const beside = () => [...(el.closest(".jupyter-widget-box, .widget-box")?.children ?? [])].filter((each) => !each.contains(el));
  const connection = makeConnection(root, (gone) => beside().forEach((each) => each.toggleAttribute("inert", gone)));
  const heard = () => connection.heard(true);
  root.append(connection.node);
  el.append(root);
  connection.begin(model.get("about"));
  model.on("msg:custom", heard);
  if (!connection.told()) model.send({ cmd: "beat" });
  return () => {
    model.off("msg:custom", heard);
    connection.close();
  };
}

export default { render };
