// The field of the route: a combobox after the pattern of WAI-ARIA. Anything may be typed; the list only offers.

const PAGE = 11;

function made(kind, attributes, ...children) {
  const e = document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
  e.append(...children);
  return e;
}

/** The offers that hold all words of what is sought: first those whose route does. */
export function found(offers, sought) {
  const words = sought.toLowerCase().split(/\s+/).filter(Boolean);
  const holds = (text) => words.every((word) => text.toLowerCase().includes(word));
  const named = offers.filter(([route]) => holds(route));
  return [...named, ...offers.filter((offer) => !named.includes(offer) && holds(offer.join(" ")))];
}

function render({ model, el }) {
  const id = `holynb-picker-${Math.random().toString(36).slice(2)}`;
  el.classList.add("holynb-picker", "widget-inline-hbox", "widget-text");
  const input = made("input", {
    id, type: "text", role: "combobox", autocomplete: "off", spellcheck: "false",
    "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": `${id}-list`,
  });
  const label = made("label", { class: "widget-label", for: id });
  const list = made("div", { id: `${id}-list`, role: "listbox", "aria-label": model.get("description") });
  const said = made("span", { role: "status" });
  let shown = [];
  let active = -1;
  let typed = false;
  let wanted = false; // the list may be wanted before the kernel has sent it

  const isOpen = () => !list.hidden;
  const point = (to) => {
    active = to;
    [...list.children].forEach((option, i) => option.setAttribute("aria-selected", String(i === to)));
    if (to < 0) input.removeAttribute("aria-activedescendant");
    else {
      input.setAttribute("aria-activedescendant", `${id}-${to}`);
      list.children[to].scrollIntoView({ block: "nearest" });
    }
  };
  const close = () => {
    wanted = typed = false;
    list.hidden = said.hidden = true;
    input.setAttribute("aria-expanded", "false");
    point(-1);
  };
  const open = () => {
    wanted = true;
    const offers = model.get("offers");
    shown = found(offers, typed ? input.value : "");
    list.replaceChildren(
      ...shown.map((offer, i) =>
        made(
          "div",
          { id: `${id}-${i}`, role: "option", "aria-selected": "false", "aria-label": offer.filter(Boolean).join(", "), title: offer[4] },
          ...offer.map((part) => made("span", {}, part)),
        ),
      ),
    );
    list.hidden = !shown.length;
    input.setAttribute("aria-expanded", String(isOpen()));
    said.hidden = !offers.length || isOpen();
    said.textContent = said.hidden ? "" : model.get("missing");
    point(typed ? -1 : shown.findIndex(([route]) => route === input.value));
  };
  const tell = () => {
    if (input.value === model.get("value")) return;
    model.set("value", input.value);
    // A message: what is saved waits for an idle kernel, and a press on Run would overtake it.
    model.send({ cmd: "typed", value: input.value });
  };
  const pick = (i) => {
    input.value = shown[i][0];
    close();
    tell();
  };

  input.addEventListener("focus", () => model.send({ cmd: "entered" }));
  input.addEventListener("click", () => isOpen() || open());
  input.addEventListener("blur", close);
  input.addEventListener("input", () => {
    typed = true;
    tell();
    open();
  });
  input.addEventListener("keydown", (event) => {
    const last = shown.length - 1;
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: PAGE, PageUp: -PAGE };
    if (event.key in steps && !event.altKey) {
      if (!isOpen()) open();
      else if (active < 0) point(event.key.endsWith("Down") ? 0 : last);
      else if (event.key.startsWith("Arrow")) point((active + steps[event.key] + shown.length) % shown.length);
      else point(Math.min(Math.max(active + steps[event.key], 0), last));
      if (isOpen() && active < 0) point(event.key.endsWith("Down") ? 0 : shown.length - 1);
    } else if (event.key === "Enter" && !event.shiftKey && !event.ctrlKey && !event.metaKey) {
      if (isOpen() && active >= 0) pick(active);
      else close();
    } else if (event.key === "Escape" && isOpen()) close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  // A press on the list must not take the focus from the field.
  list.addEventListener("mousedown", (event) => event.preventDefault());
  list.addEventListener("click", (event) => {
    const option = event.target.closest("[role=option]");
    if (option) pick([...list.children].indexOf(option));
  });

  const label_ = () => {
    label.textContent = model.get("description");
    input.placeholder = model.get("placeholder");
  };
  const fill = () => {
    if (input.value !== model.get("value")) input.value = model.get("value");
  };
  const refill = () => {
    if (wanted) open();
  };
  const told = { "change:value": fill, "change:offers": refill, "change:description": label_, "change:placeholder": label_ };
  for (const [what, then] of Object.entries(told)) model.on(what, then);
  label_();
  fill();
  close();
  el.append(label, made("div", {}, input, list, said));
  return () => {
    for (const [what, then] of Object.entries(told)) model.off(what, then);
  };
}

export default { render };
