// Follow the page: when the server says that something changed, fetch the page again and put in the parts that differ.
// Without this script the page is whole; it reloads itself while something runs.
"use strict";

(() => {
  const source = document.body.dataset.events;
  if (!source || !window.EventSource) return;

  let busy = false;
  let again = false;

  const replace = (page) => {
    for (const fresh of page.querySelectorAll("[data-live]")) {
      const old = document.getElementById(fresh.id);
      if (!old || old.outerHTML === fresh.outerHTML) continue;
      const opened = new Map([...old.querySelectorAll("details[id]")].map((one) => [one.id, one.open]));
      const focused = document.activeElement && old.contains(document.activeElement) ? document.activeElement.id : "";
      for (const one of fresh.querySelectorAll("details[id]")) {
        if (opened.has(one.id)) one.open = opened.get(one.id);
      }
      old.replaceWith(document.adoptNode(fresh));
      if (focused) document.getElementById(focused)?.focus();
    }
    document.title = page.title;
  };

  const refresh = async () => {
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    try {
      do {
        again = false;
        const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
        if (answer.ok) replace(new DOMParser().parseFromString(await answer.text(), "text/html"));
      } while (again);
    } catch {
      // The server is away; the source below tries again by itself.
    } finally {
      busy = false;
    }
  };

  const events = new EventSource(source);
  events.addEventListener("change", refresh);
  // Whatever was missed while the connection was down is fetched when it is back.
  let lost = false;
  events.addEventListener("error", () => (lost = true));
  events.addEventListener("open", () => {
    if (lost) refresh();
    lost = false;
  });
})();
