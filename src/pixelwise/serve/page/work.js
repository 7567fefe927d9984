// An open photo or scene: the map, and the panel beside it.

import { save } from "./api.js";
import * as correcting from "./correct.js";
import { CONFIDENCE, classColours, confidenceColours } from "./layers.js";
import { $, attempt, complain, count, icon, make, percent, say, swatch } from "./page.js";
import { Parcels } from "./parcels.js";
import { Viewer, swipeHandle } from "./viewer.js";

const NAMED_ABSENT = 6;

let now = null; // {subject, viewer, hidden, shown: {image, classes, confidence}, parcels, stop, ...}
let setSwipe = null;
let swipe = 0.5;

export const current = () => now?.subject ?? null;

/** Show a photo or a scene. One that is shown already gets what is new, and stays where it is. */
export function show(subject, offers) {
  const same = now && now.subject.kind === subject.kind && now.subject.id === subject.id && sameSize(now.subject, subject);
  if (!same) {
    close();
    const says = { pointed, left: () => ($("reading").hidden = true), centred, chosen, moved: () => now?.parcels?.moved() };
    $("work").hidden = false; // a map needs its size
    const viewer = new Viewer($("map"), subject, says);
    now = { viewer, hidden: new Set(), stop: new AbortController(), next: null, reading: false };
    $("parcels-on").checked = false;
  }
  now.subject = subject;
  now.offers = offers;
  now.parcels?.close();
  now.parcels?.show(false);
  now.parcels = subject.parcels
    ? new Parcels(now.viewer, subject, (some) => ($("parcels-note").hidden = !some))
    : null;
  layLayers();
  fillPanel();
}

const sameSize = (a, b) => a.width === b.width && a.height === b.height;

export function close() {
  if (!now) return;
  now.stop.abort();
  now.parcels?.close();
  now.viewer.close();
  now = null;
  $("reading").hidden = $("saved").hidden = true;
  $("work").hidden = true;
}

function layLayers() {
  const { subject, viewer } = now;
  for (const layer of Object.values(now.shown ?? {})) layer?.remove();
  const { image, classes, confidence } = subject.layers;
  const ready = subject.classes.length > 0;
  now.shown = {
    image: image("image").addTo(viewer.map),
    classes: ready ? classes(classColours(subject.classes, now.hidden), "classes").addTo(viewer.map) : null,
    confidence: null,
  };
  applyView();
}

/** Bring the map in line with the switches of the panel. */
function applyView() {
  const { subject, viewer, shown } = now;
  const ready = subject.classes.length > 0;
  const busy = correcting.painting();
  const layer = busy ? "classes" : document.querySelector("[name=layer]:checked").value;
  const sureness = layer === "confidence" && ready;
  if (sureness && !shown.confidence) {
    shown.confidence = subject.layers.confidence(confidenceColours(), "confidence").addTo(viewer.map);
  }
  const opacity = Number($("opacity").value) / 100;
  viewer.fade("classes", sureness ? 0 : opacity);
  viewer.fade("confidence", sureness ? opacity : 0);
  const swiped = ready && !busy && $("swipe-on").checked;
  $("swipe").hidden = !swiped;
  viewer.setSwipe(swiped ? swipe : null);
  $("scale").hidden = !sureness;
  const on = $("parcels-on").checked && !busy;
  if (now.parcels && now.parcels.shown !== on) now.parcels.show(on);
}

function fillPanel() {
  const { subject, offers } = now;
  const ready = subject.classes.length > 0;
  const painting = correcting.painting();
  $("name").textContent = subject.name;
  document.title = `${subject.name} · pixelwise`;
  $("facts").textContent = `${count(subject.width)} × ${count(subject.height)} · ${subject.model}`;
  $("map").setAttribute(
    "aria-label",
    `${subject.name}. Arrow keys move, plus and minus zoom. The class under the middle is read out.`,
  );
  $("view").hidden = !ready || painting;
  $("legend").hidden = !ready || painting;
  $("downloads").hidden = !subject.downloads.length || painting;
  $("correct-start").hidden = !ready || painting || !offers.corrections;
  $("parcels-line").hidden = !subject.parcels;
  const confidence = document.querySelector("[name=layer][value=confidence]");
  confidence.disabled = !subject.layers.confidence;
  if (confidence.disabled && confidence.checked) document.querySelector("[name=layer][value=classes]").checked = true;
  fillLegend();
  $("downloads")
    .querySelector("ul")
    .replaceChildren(...subject.downloads.map(download));
}

function fillLegend() {
  const { classes } = now.subject;
  const present = classes.map((each, i) => [each, i]).filter(([each]) => each.pixels > 0);
  const absent = classes.filter((each) => !each.pixels).map((each) => each.name);
  const rest = absent.length > NAMED_ABSENT ? `${absent.length} other classes` : absent.join(", ");
  const last = absent.length ? [make("li", { className: "soft" }, `Not found: ${rest}`)] : [];
  $("legend")
    .querySelector("ul")
    .replaceChildren(...present.map(([each, i]) => legendLine(each, i)), ...last);
}

function legendLine({ name, color, share }, i) {
  const bar = make("i", { className: "bar" });
  bar.style.setProperty("--share", String(share));
  bar.style.setProperty("--colour", color);
  const button = make("button", { type: "button" }, swatch(color), make("span", {}, name), make("b", {}, percent(share)), bar);
  button.title = "Hide or show";
  const mark = () => button.setAttribute("aria-pressed", String(!now.hidden.has(i)));
  mark();
  button.addEventListener("click", () => {
    now.hidden.has(i) ? now.hidden.delete(i) : now.hidden.add(i);
    mark();
    now.shown.classes.recolour(classColours(now.subject.classes, now.hidden));
  });
  return make("li", {}, button);
}

function download({ text, kind, name, get }) {
  const button = make("button", { type: "button" }, icon("save"), make("span", {}, text), make("small", {}, kind));
  button.addEventListener("click", attempt(async () => save(typeof get === "string" ? get : await get(), name)));
  return make("li", {}, button);
}

function pointed(x, y) {
  read(x, y, showReading);
}

function centred(x, y) {
  read(x, y, (found, at) => {
    showReading(found, at);
    say(found ? sentence(found) : "Outside the image");
  });
}

function chosen(x, y) {
  if (correcting.painting()) return correcting.clicked(x, y);
  pointed(x, y);
  now.parcels?.choose(x, y);
}

/** Ask what is at a pixel; while one answer is on its way, only the newest question waits. */
async function read(x, y, tell) {
  const open = now;
  open.next = [Math.floor(x), Math.floor(y), tell];
  if (open.reading) return;
  open.reading = true;
  while (open.next) {
    const [column, row, told] = open.next;
    open.next = null;
    const { subject } = open;
    const inside = column >= 0 && row >= 0 && column < subject.width && row < subject.height;
    try {
      const found = inside && subject.classes.length ? await subject.at(column, row, open.stop.signal) : null;
      if (now === open) told(found, [column, row]);
    } catch (error) {
      if (now === open && error.status !== 404) complain(error);
    }
  }
  open.reading = false;
}

function showReading(found, [x, y]) {
  const element = $("reading");
  element.hidden = !found;
  if (!found) return;
  const named = now.subject.classes[found.class];
  element.querySelector(".swatch").style.background = named?.color ?? "transparent";
  element.querySelector("b").textContent = named?.name ?? "no data";
  element.querySelector("span").textContent = [
    named && found.confidence !== null && found.confidence !== undefined ? percent(found.confidence) : "",
    `${x}, ${y}`,
  ]
    .filter(Boolean)
    .join(" · ");
}

function sentence(found) {
  const named = now.subject.classes[found.class];
  if (!named) return "No data";
  return found.confidence === null ? named.name : `${named.name}, ${percent(found.confidence)}`;
}

function startCorrecting() {
  $("saved").hidden = true;
  correcting.start(now.subject, now.viewer, (answer) => {
    fillPanel();
    applyView();
    if (answer) showSaved(answer);
    $("correct").focus();
  });
  fillPanel();
  applyView();
}

function showSaved({ count: all, command }) {
  const saved = $("saved");
  saved.hidden = false;
  saved.querySelector("p").textContent = all > 1 ? `Saved. ${count(all)} corrections so far. To train on them:` : "Saved. To train on it:";
  saved.querySelector("code").textContent = command ?? "";
  saved.querySelector(".command").hidden = !command;
}

async function copyCommand() {
  const code = $("saved").querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    say("Copied");
  } catch {
    getSelection().selectAllChildren(code); // a page without https has no clipboard
  }
}

export function setUp() {
  correcting.setUp();
  setSwipe = swipeHandle($("swipe"), $("stage"), (share) => {
    swipe = share;
    now?.viewer.setSwipe(share);
  });
  for (const input of document.querySelectorAll("[name=layer], #opacity, #swipe-on, #parcels-on")) {
    input.addEventListener("input", applyView);
  }
  for (const button of document.querySelectorAll("[data-zoom]")) {
    const by = Number(button.dataset.zoom);
    button.addEventListener("click", () => (by ? now.viewer.zoom(by) : now.viewer.fit()));
  }
  $("map").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !correcting.painting()) chosen(...now.viewer.centre());
  });
  $("map").addEventListener("focus", () => now && $("map").matches(":focus-visible") && centred(...now.viewer.centre()));
  $("correct").addEventListener("click", attempt(startCorrecting));
  $("saved").querySelector("button").addEventListener("click", copyCommand);
  $("scale").querySelector("i").style.background = `linear-gradient(to right, ${CONFIDENCE.join(", ")})`;
}
