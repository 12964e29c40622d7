// Shows the page again whenever the hub says that something changed. Without script the page works by reloading.
"use strict";
let showing = false, again = false;
async function show() {
  if (showing) { again = true; return; }
  showing = true;
  try {
    const answer = await fetch(location.href, {cache: "no-store"});
    if (answer.ok) {
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      document.getElementById("live").replaceWith(page.getElementById("live"));
    }
    document.body.classList.remove("stale");
  } catch { document.body.classList.add("stale"); }
  showing = false;
  if (again) { again = false; show(); }
}
const changes = new EventSource("/changes");
changes.addEventListener("changed", show);
changes.onopen = () => { if (document.body.classList.contains("stale")) show(); };
changes.onerror = () => document.body.classList.add("stale");
setInterval(show, 15000); // "12 s ago" grows also when nothing changes
