// Keeps the page current from its fragment: at once when the server says there is news (server-sent
// events), else from time to time. Keeps focus, scroll position, pictures and selection.
"use strict";
(() => {
  const live = document.getElementById("live");
  if (!live) return;
  const form = document.getElementById("filters");
  const lost = document.getElementById("lost");
  const announce = document.getElementById("announce");
  const freshness = document.getElementById("freshness");
  const freshnessText = document.getElementById("freshness-text");
  const everyMs = Number(live.dataset.refreshS) * 1000;
  let shown = null; // the fragment as it was last put in
  let since = new Date();
  let timer = 0;
  let pressed = false; // a click must end on the element where it began
  let asked = 0; // number of the latest request; answers to earlier ones are dropped
  let busy = false; // a request is under way; news meanwhile are fetched after it
  let again = false;
  let events = null; // the stream of news; none while the page is hidden (browsers allow few)
  let told = false; // whether the stream is open, so that asking may be rare
  const RARELY_MS = 15000;

  const clock = (moment) => moment.toLocaleTimeString([], { hour12: false });

  function urgentRows() {
    return new Set([...live.querySelectorAll('tr[data-level="STAT"]')].map((row) => row.id));
  }

  // Rows that say the same stay the same elements, and pictures that are shown are not loaded again.
  function keep(fresh) {
    for (const row of fresh.querySelectorAll("tr[id]")) {
      const old = document.getElementById(row.id);
      old?.classList.remove("is-new");
      const selected = old?.classList.contains("is-selected");
      old?.classList.remove("is-selected");
      if (old && old.outerHTML === row.outerHTML) row.replaceWith(old);
      if (selected) old.classList.add("is-selected");
    }
    for (const part of fresh.querySelectorAll("[data-keep]")) { // what the reader has set up stays
      const old = document.getElementById(part.id);
      if (old && old.dataset.keep === part.dataset.keep) part.replaceWith(old);
    }
    const pictures = new Map([...live.querySelectorAll("img")].map((i) => [i.getAttribute("src"), i]));
    for (const image of fresh.querySelectorAll("img")) {
      const old = pictures.get(image.getAttribute("src"));
      if (old && old !== image && old.width === image.width) {
        pictures.delete(image.getAttribute("src"));
        image.replaceWith(old);
      }
    }
  }

  function replace(html) {
    const focused = live.contains(document.activeElement) ? document.activeElement.id : "";
    const opened = [...live.querySelectorAll("details[open]")].map((d) => d.id);
    const top = scrollY;
    const before = urgentRows();
    const fresh = document.createElement("div");
    fresh.innerHTML = html;
    if (shown === null && fresh.innerHTML.trim() === live.innerHTML.trim()) {
      shown = html; // the page as it was served
      return;
    }
    keep(fresh);
    for (const id of opened) fresh.querySelector(`#${CSS.escape(id)}`)?.setAttribute("open", "");
    live.replaceChildren(...fresh.childNodes);
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
    scrollTo(scrollX, top);
    if (shown !== null) tell(before);
    shown = html;
    document.dispatchEvent(new CustomEvent("worklist:shown"));
  }

  function tell(before) {
    const added = [...urgentRows()].filter((id) => !before.has(id));
    for (const id of added) document.getElementById(id).classList.add("is-new");
    if (added.length) {
      announce.textContent = added.length === 1 ? "A STAT study was added" : `${added.length} STAT studies were added`;
    }
  }

  function connected(ok, why) {
    document.body.classList.toggle("is-stale", !ok);
    freshness.classList.toggle("is-lost", !ok);
    if (ok) {
      since = new Date();
      freshnessText.textContent = `Updated ${clock(since)}`;
      lost.hidden = true;
    } else {
      freshnessText.textContent = "Connection lost";
      const text = `Connection lost${why}. Shown is the list as of ${clock(since)}; trying again.`;
      if (lost.textContent !== text) lost.textContent = text;
      lost.hidden = false;
    }
  }

  async function refresh() {
    clearTimeout(timer);
    const mine = ++asked;
    busy = true;
    try {
      const answer = await fetch(live.dataset.fragment + location.search, {
        signal: AbortSignal.timeout(Math.max(10000, everyMs)),
      });
      const html = await answer.text();
      if (mine !== asked) return;
      if (answer.ok) {
        const selecting = !getSelection().isCollapsed && live.contains(getSelection().anchorNode);
        if (html !== shown && !selecting && !pressed) replace(html);
        connected(true);
      } else {
        connected(false, ` (the server answered ${answer.status})`);
      }
    } catch {
      if (mine !== asked) return;
      connected(false, "");
    }
    if (mine !== asked) return;
    busy = false;
    if (again) { again = false; refresh(); return; }
    if (!document.hidden) timer = setTimeout(refresh, told ? Math.max(everyMs, RARELY_MS) : everyMs);
  }

  function news() {
    if (busy) again = true;
    else refresh();
  }

  function listen() {
    if (events || document.hidden) return;
    events = new EventSource("/events");
    events.addEventListener("hello", () => { told = true; news(); });
    events.addEventListener("change", news);
    events.onerror = () => {
      told = false;
      if (events?.readyState === EventSource.CLOSED) { events = null; setTimeout(listen, RARELY_MS); }
      news();
    };
  }

  function deafen() {
    events?.close();
    events = null;
    told = false;
  }

  function goTo(url) {
    history.replaceState(null, "", url);
    refresh();
  }

  async function post(url, body, label) {
    try {
      const answer = await fetch(url, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body,
      });
      const said = await answer.json().catch(() => ({}));
      if (answer.ok) announce.textContent = `${label}: recorded`;
      else failed(typeof said.detail === "string" ? said.detail : `the server answered ${answer.status}`);
    } catch {
      failed("the server could not be reached");
    }
    refresh();
  }

  function failed(why) {
    lost.textContent = `Not recorded: ${why}`;
    lost.hidden = false;
    setTimeout(() => { lost.hidden = true; }, 8000);
  }

  live.addEventListener("pointerdown", () => { pressed = true; });
  for (const end of ["pointerup", "pointercancel", "dragend", "blur"]) addEventListener(end, () => { pressed = false; });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-post]");
    if (!button) return;
    button.disabled = true;
    post(button.dataset.post, button.dataset.body, button.textContent).finally(() => { button.disabled = false; });
  });
  document.addEventListener("worklist:post", (event) => post(event.detail.url, event.detail.body, event.detail.label));
  if (form) {
    const filter = () => {
      const values = [...new FormData(form)].filter(([name, value]) => value && !(name === "reading" && value === "open") && !(name === "sort" && value === "order"));
      goTo(values.length ? `/?${new URLSearchParams(values)}` : "/");
    };
    let typing = 0;
    form.addEventListener("submit", (event) => { event.preventDefault(); filter(); });
    for (const kind of ["input", "change"]) {
      form.addEventListener(kind, () => { clearTimeout(typing); typing = setTimeout(filter, 250); });
    }
    document.documentElement.classList.add("has-script");
  }
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { deafen(); return; }
    listen();
    refresh();
  });
  addEventListener("pagehide", deafen);
  addEventListener("pageshow", (event) => { if (event.persisted) { listen(); refresh(); } });
  timer = setTimeout(refresh, everyMs);
  listen();
})();
