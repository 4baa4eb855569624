// The keyboard: move through the list, act on the selected study; ? shows how. Also the dialogs.
"use strict";
(() => {
  const ask = document.getElementById("ask");
  const help = document.getElementById("help");
  const live = document.getElementById("live");
  let selected = ""; // key of the study; survives a refresh, which may replace its row
  let asking = null; // {url, body}

  const studies = () => [...document.querySelectorAll("#live [data-key]")];
  const current = () => studies().find((s) => s.dataset.key === selected)
    || document.activeElement?.closest?.("#live [data-key]")
    || (studies().length === 1 && !document.querySelector(".worklist") ? studies()[0] : null);

  function mark() {
    for (const study of studies()) study.classList.toggle("is-selected", study.dataset.key === selected);
  }

  function move(step) {
    const all = studies();
    if (!all.length) return;
    const at = all.findIndex((s) => s.dataset.key === selected);
    const next = all[at < 0 ? (step > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + step))];
    selected = next.dataset.key;
    mark();
    next.querySelector("a.open")?.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
  }

  const post = (study, path, body, label) => document.dispatchEvent(new CustomEvent("worklist:post", {
    detail: { url: `/api/studies/${study.dataset.key}/${path}`, body: JSON.stringify(body), label },
  }));

  function opened(study, kind) {
    asking = { key: study.dataset.key, kind };
    const priority = kind === "priority";
    document.getElementById("ask-title").textContent = priority ? "Change the priority" : "Disagree with the model";
    const name = document.querySelector(`#s-${CSS.escape(study.dataset.key)} .name`) || document.getElementById("study-title");
    document.getElementById("ask-about").textContent = name ? name.textContent : "";
    document.getElementById("ask-level-label").hidden = !priority;
    document.getElementById("ask-level").value = study.dataset.given;
    document.getElementById("ask-reason").value = "";
    document.getElementById("ask-problem").hidden = true;
    ask.showModal();
    document.getElementById(priority ? "ask-level" : "ask-reason").focus();
  }

  async function save(event) {
    event.preventDefault();
    const reason = document.getElementById("ask-reason").value.trim();
    const problem = document.getElementById("ask-problem");
    const priority = asking.kind === "priority";
    const body = priority ? { level: document.getElementById("ask-level").value, reason } : { kind: "disagreed", text: reason };
    const path = priority ? "priority" : "feedback";
    if (priority && reason.length < 3) {
      problem.textContent = "Say why: others see it in the timeline.";
      problem.hidden = false;
      document.getElementById("ask-reason").focus();
      return;
    }
    ask.close();
    document.dispatchEvent(new CustomEvent("worklist:post", {
      detail: { url: `/api/studies/${asking.key}/${path}`, body: JSON.stringify(body), label: priority ? "Priority" : "Disagree" },
    }));
  }

  const actions = {
    j: () => move(1),
    k: () => move(-1),
    s: (s) => {
      const next = { unread: "reading", reading: "read", read: "unread" }[s.dataset.reading];
      post(s, "reading-state", { state: next }, next === "read" ? "Read" : "Reading");
    },
    a: (s) => post(s, "feedback", { kind: "acknowledged" }, "Acknowledge"),
    g: (s) => s.dataset.analysed && post(s, "feedback", { kind: "agreed" }, "Agree"),
    d: (s) => s.dataset.analysed && opened(s, "disagree"),
    p: (s) => opened(s, "priority"),
    v: (s) => s.querySelector("[data-viewer=pacs]")?.click(),
    o: (s) => s.querySelector("[data-viewer=ohif]")?.click(),
  };
  const onPage = {
    "?": () => help.showModal(),
    "/": () => document.querySelector("#filters [name=finding]")?.focus(),
    u: () => document.getElementById("back")?.click(),
  };

  function enabled() {
    try {
      return localStorage.getItem("keys") !== "off";
    } catch {
      return true;
    }
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.target.closest("input, select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (event.key === "?") { event.preventDefault(); onPage["?"](); return; }
    if (!enabled()) return;
    if (onPage[event.key]) { event.preventDefault(); onPage[event.key](); return; }
    if (!actions[event.key]) return;
    if ("jk".includes(event.key)) { event.preventDefault(); actions[event.key](); return; }
    const study = current();
    if (!study) return;
    event.preventDefault();
    actions[event.key](study);
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-ask]");
    const study = button?.closest("[data-key]");
    if (study) opened(study, button.dataset.ask);
  });
  live?.addEventListener("focusin", (event) => {
    const study = event.target.closest("[data-key]");
    if (study && study.dataset.key !== selected) { selected = study.dataset.key; mark(); }
  });
  document.addEventListener("worklist:shown", mark);
  document.getElementById("ask-form").addEventListener("submit", save);
  document.getElementById("ask-cancel").addEventListener("click", () => ask.close());
  document.getElementById("help-open").addEventListener("click", () => help.showModal());
  document.getElementById("help-close").addEventListener("click", () => help.close());
  const on = document.getElementById("keys-on");
  on.checked = enabled();
  on.addEventListener("change", () => {
    try {
      localStorage.setItem("keys", on.checked ? "on" : "off");
    } catch {
      // storage may be forbidden; the choice is then not kept
    }
  });
  document.documentElement.classList.add("has-script");
})();
