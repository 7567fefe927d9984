"use strict";
const EVERY = 2000;
const main = document.querySelector("main"), gone = document.querySelector("#gone");
let version = document.documentElement.dataset.version || "";

// Only what differs is replaced, so that pictures do not flicker and selected text stays.
function show(html) {
  const fresh = document.createElement("template");
  fresh.innerHTML = html;
  for (const part of [...fresh.content.children]) {
    const old = document.getElementById(part.id);
    if (!old) main.append(part);
    else if (old.outerHTML !== part.outerHTML) old.replaceWith(part);
  }
  document.title = document.querySelector("#head").dataset.title + " · pixelwise";
}

async function ask() {
  // A page that nobody sees asks nothing.
  if (!document.hidden) {
    try {
      const answer = await fetch("body?version=" + encodeURIComponent(version), { cache: "no-store" });
      if (answer.status === 200) {
        version = answer.headers.get("X-Version");
        show(await answer.text());
      }
      gone.hidden = answer.ok || answer.status === 304;
    } catch {
      gone.hidden = false;
    }
  }
  setTimeout(ask, EVERY);
}

document.addEventListener("visibilitychange", () => { if (!document.hidden) version = ""; });
ask();
