// The columns of a frame: a search field and a button each. A press writes the column where the cursor stands in the prompt.

function write(el, text) {
  const prompt = el.closest(".holynb-form")?.querySelector(".holynb-prompt textarea");
  if (!prompt) return;
  const [start, end] = [prompt.selectionStart, prompt.selectionEnd];
  const before = prompt.value.slice(0, start);
  const gap = before && !/\s$/.test(before) && start === end ? " " : "";
  prompt.setRangeText(gap + text, start, end, "end");
  // As if it were typed: the field's own widget tells the kernel.
  prompt.dispatchEvent(new Event("input", { bubbles: true }));
}

function render({ model, el }) {
  el.classList.add("holynb-columns");
  const search = document.createElement("input");
  search.type = "search";
  const list = document.createElement("div");
  list.setAttribute("role", "group");
  const none = document.createElement("span");
  none.setAttribute("role", "status");
  const fill = () => {
    const names = model.get("names");
    const sought = search.value.trim().toLowerCase();
    const found = names.filter((name) => name.toLowerCase().includes(sought));
    el.hidden = !names.length;
    search.hidden = names.length < 9;
    search.placeholder = model.get("hint");
    search.setAttribute("aria-label", model.get("hint"));
    list.setAttribute("aria-label", model.get("label"));
    none.textContent = found.length || !names.length ? "" : model.get("missing");
    list.replaceChildren(
      ...found.map((name) => {
        const button = document.createElement("button");
        button.type = "button";
        button.className = "jupyter-button";
        button.textContent = `{{ ${name} }}`;
        button.addEventListener("click", () => write(el, button.textContent));
        return button;
      }),
      none,
    );
  };
  search.addEventListener("input", fill);
  search.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && search.value) {
      search.value = "";
      fill();
      event.stopPropagation();
    } else if (event.key === "Enter") list.querySelector("button")?.click();
  });
  const refill = () => {
    search.value = "";
    fill();
  };
  model.on("change:names", refill);
  fill();
  el.append(search, list);
  return () => model.off("change:names", refill);
}

export default { render };
