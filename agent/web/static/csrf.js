// Repeats the page's CSRF token in every changing request to our own server (fetch and htmx).
"use strict";
(() => {
  const token = document.querySelector('meta[name="csrf-token"]')?.content;
  if (!token) return;
  const plainFetch = window.fetch;
  window.fetch = (input, options = {}) => {
    const request = new Request(input, options);
    const changes = !["GET", "HEAD", "OPTIONS"].includes(request.method);
    if (!changes || new URL(request.url).origin !== location.origin) return plainFetch(input, options);
    request.headers.set("X-CSRF-Token", token);
    return plainFetch(request);
  };
  document.addEventListener("htmx:configRequest", (event) => {
    event.detail.headers["X-CSRF-Token"] = token;
  });
})();
