// Moves through the slices of a finding's series: range, wheel and arrow keys; overlay on or off.
"use strict";
(() => {
  const setup = new WeakMap(); // figure -> {count, key}

  function show(figure) {
    const { count } = setup.get(figure);
    const index = Number(figure.querySelector("input[type=range]").value);
    const plain = figure.querySelector("input[type=checkbox]").checked ? "" : "?plain=true";
    figure.querySelector("output").textContent = `${index + 1} / ${count}`;
    figure.querySelector("img").src = `${figure.dataset.slices}/${index}.png${plain}`;
  }

  async function open(figure) {
    const button = figure.querySelector("button[data-slices-open]");
    const problem = figure.querySelector(".slices-problem");
    button.disabled = true;
    try {
      const answer = await fetch(`/api${figure.dataset.slices}`);
      const said = await answer.json();
      if (!answer.ok) throw new Error(typeof said.detail === "string" ? said.detail : "no slices");
      setup.set(figure, said);
      const range = figure.querySelector("input[type=range]");
      range.max = said.count - 1;
      range.value = said.key;
      button.hidden = true;
      figure.querySelector(".slider").hidden = false;
      range.focus();
      show(figure);
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
      button.disabled = false;
    }
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-slices-open]");
    if (button) open(button.closest("figure"));
  });
  for (const kind of ["input", "change"]) {
    document.addEventListener(kind, (event) => {
      const figure = event.target.closest("figure[data-slices]");
      if (figure && setup.has(figure)) show(figure);
    });
  }
  document.addEventListener("wheel", (event) => {
    const figure = event.target.closest?.("figure[data-slices]");
    if (!figure || !setup.has(figure) || event.target.tagName !== "IMG") return;
    event.preventDefault();
    const range = figure.querySelector("input[type=range]");
    range.value = Number(range.value) + Math.sign(event.deltaY);
    show(figure);
  }, { passive: false });
})();
