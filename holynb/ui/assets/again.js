// What the table of a run has that is shown again: two rows side by side, and its rows as files.

/** hooks: send(message), and those of makeCompare. */
function makeAgain({ send, ...hooks }) {
  const ask = (what, safe, all) => send({ cmd: "export", what, safe, rows: all ? [] : hooks.table.listed() });
  return { bar: makeExport(ask), pair: makeCompare(hooks) };
}
