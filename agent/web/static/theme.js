// Colors: as the system says, unless the reader chose dark or light. Runs before the first paint.
"use strict";
(() => {
  const order = ["system", "dark", "light"];
  const root = document.documentElement;
  let theme = "system";
  try {
    theme = localStorage.getItem("theme") || "system";
  } catch {
    // storage may be forbidden; the choice then lasts as long as the page
  }
  const apply = () => {
    if (theme === "system") delete root.dataset.theme;
    else root.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button) button.textContent = `Theme: ${theme}`;
  };
  apply();
  document.addEventListener("DOMContentLoaded", () => {
    apply();
    document.getElementById("theme").addEventListener("click", () => {
      theme = order[(order.indexOf(theme) + 1) % order.length];
      try {
        localStorage.setItem("theme", theme);
      } catch {
        // as above
      }
      apply();
    });
  });
})();
