// Correct labels: paint over a mistake, and send what was painted as a mask that `pixelwise train` takes.

import { send } from "./api.js";
import { boundsOf, canvasLayer, classColours, draw, newCanvas } from "./layers.js";
import { Mask, UNTOUCHED } from "./mask.js";
import { encode } from "./png.js";
import { $, attempt, make, say, sure, swatch } from "./page.js";

const L = window.L;
const SIZES = [1, 2, 3, 5, 8, 12, 20, 32, 50, 80, 120, 200];
const SMALLEST = 512; // of a part of a scene: what a network learns from should show what is around
const LARGEST = 1024;
const CLOSE = 14; // pixels of the screen to the first corner that end a polygon
const KEYS = { b: "brush", e: "eraser", p: "polygon", h: "move" };

let now = null;

export const painting = () => now !== null;
export const unsaved = () => now !== null && !now.mask.empty;

/** Begin: `done(answer)` is called when it ended, with the server's answer if something was saved. */
export function start(subject, viewer, done) {
  const part = subject.kind === "photo" ? whole(subject) : partOf(viewer.seen(), subject);
  const canvas = newCanvas(part.width, part.height);
  const layer = canvasLayer(canvas, boundsOf(part.x, part.y, part.width, part.height), "painted").addTo(viewer.map);
  const colours = classColours(subject.classes, new Set());
  colours[UNTOUCHED] = 0;
  const mask = new Mask(part.width, part.height);
  now = { subject, viewer, part, canvas, layer, colours, mask, done, value: 0, tool: "", stroke: null, corners: [] };
  now.outline = L.polygon([], { pane: "painted", color: "#fff", weight: 2, fillOpacity: 0.2, interactive: false });
  now.first = L.circleMarker([0, 0], { pane: "painted", radius: 6, color: "#fff", fillOpacity: 1, interactive: false });
  now.frame = part.whole ? null : frame(part).addTo(viewer.map);
  if (!part.whole) viewer.show(part.x, part.y, part.width, part.height);
  $("paint-as").replaceChildren(...subject.classes.map(choice));
  $("rest").checked = false;
  $("correcting").hidden = $("tools").hidden = false;
  choose(0);
  pick("brush");
  resize(Number($("size").value));
  changed();
  document.querySelector("#paint-as input").focus();
}

function whole({ width, height }) {
  return { x: 0, y: 0, width, height, whole: true };
}

/** The part of a scene to correct: what is seen, of a size that a network learns from. */
function partOf(seen, { width, height }) {
  const along = (from, length, limit) => {
    const wanted = Math.min(limit, LARGEST, Math.max(SMALLEST, length));
    const start = Math.round(from + (length - wanted) / 2);
    return [Math.max(0, Math.min(limit - wanted, start)), wanted];
  };
  const [x, wide] = along(seen.x, seen.width, width);
  const [y, high] = along(seen.y, seen.height, height);
  return { x, y, width: wide, height: high, whole: false };
}

function frame({ x, y, width, height }) {
  const box = ([l, t, r, b]) => [[t, l], [t, r], [b, r], [b, l]];
  const far = 1e6;
  return L.polygon([box([-far, -far, far, far]), box([x, y, x + width, y + height])], {
    ...{ pane: "painted", interactive: false, color: "#fff", weight: 1.5, fillColor: "#000", fillOpacity: 0.45 },
  });
}

function choice({ name, color }, i) {
  const input = make("input", { type: "radio", name: "paint", value: String(i) });
  input.addEventListener("change", () => choose(i));
  const key = i < 9 ? [make("kbd", {}, String(i + 1))] : [];
  return make("label", {}, input, swatch(color), make("span", {}, name), ...key);
}

function choose(value) {
  now.value = value;
  const input = document.querySelectorAll("#paint-as input")[value];
  input.checked = true;
  if (now.tool === "eraser" || now.tool === "move") pick("brush");
  paintCursor();
}

function pick(tool) {
  if (now.tool === "polygon" && tool !== "polygon") dropCorners();
  now.tool = tool;
  for (const button of document.querySelectorAll("[data-tool]")) {
    button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
  }
  const { map } = now.viewer;
  const strokes = tool === "brush" || tool === "eraser";
  strokes ? map.dragging.disable() : map.dragging.enable();
  tool === "move" ? map.doubleClickZoom.enable() : map.doubleClickZoom.disable();
  $("stage").dataset.tool = tool;
  paintCursor();
}

function resize(step) {
  $("size").value = String(step);
  now.size = SIZES[Number($("size").value)];
  document.querySelector("#tools output").textContent = `${now.size} px`;
  $("size").setAttribute("aria-valuetext", `${now.size} pixels`);
  paintCursor();
}

/** The circle that shows what the brush covers. */
export function paintCursor(event) {
  const brush = $("brush");
  const strokes = now && (now.tool === "brush" || now.tool === "eraser");
  if (!strokes) {
    brush.hidden = true;
    return;
  }
  const side = Math.max(3, now.size * now.viewer.scale());
  brush.style.width = brush.style.height = `${side}px`;
  brush.style.color = now.tool === "brush" ? now.subject.classes[now.value].color : "#fff";
  if (!event) return;
  const box = $("stage").getBoundingClientRect();
  brush.hidden = event.pointerType === "touch" && event.type === "pointerup";
  brush.style.left = `${event.clientX - box.left}px`;
  brush.style.top = `${event.clientY - box.top}px`;
}

const at = (point) => [point[0] - now.part.x, point[1] - now.part.y];
const painted = () => (now.tool === "eraser" ? UNTOUCHED : now.value);

function stamp(from, to) {
  now.mask.line(at(from), at(to), now.size, painted());
  draw(now.canvas, now.mask.values, now.colours, now.mask.changed ?? undefined);
}

function endStroke() {
  now.stroke = null;
  now.mask.commit();
  changed();
}

/** Take back a stroke that a second finger turned into a pinch. */
function dropStroke() {
  now.stroke = null;
  now.mask.commit();
  step("undo");
  now.mask.future = [];
  changed();
}

function addCorner(point) {
  const { map } = now.viewer;
  const near = now.corners.length > 2 && gap(point, now.corners[0]) * now.viewer.scale() < CLOSE;
  if (near) return closeCorners();
  now.corners.push(point);
  const color = now.subject.classes[now.value].color;
  now.outline.setLatLngs(now.corners.map(([x, y]) => [y, x])).setStyle({ fillColor: color }).addTo(map);
  now.first.setLatLng([now.corners[0][1], now.corners[0][0]]).setStyle({ fillColor: color }).addTo(map);
}

const gap = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);

function closeCorners() {
  if (now.corners.length < 3) return;
  now.mask.polygon(now.corners.map(at), now.value);
  draw(now.canvas, now.mask.values, now.colours, now.mask.changed ?? undefined);
  dropCorners();
  endStroke();
}

function dropCorners() {
  now.corners = [];
  now.outline.remove();
  now.first.remove();
}

function step(which) {
  const box = now.mask[which]();
  if (box) draw(now.canvas, now.mask.values, now.colours, box);
  changed();
}

function changed() {
  document.querySelector("[data-step=undo]").disabled = !now.mask.past.length;
  document.querySelector("[data-step=redo]").disabled = !now.mask.future.length;
  $("save").disabled = now.mask.empty;
}

async function store() {
  const { subject, part, mask } = now;
  $("save").disabled = true;
  try {
    const rest = $("rest").checked ? await subject.labels(part.x, part.y, part.width, part.height) : null;
    const values = rest ? mask.over(rest) : mask.values;
    const form = new FormData();
    if (subject.kind === "photo") form.append("image", subject.file, subject.name);
    else {
      form.append("job", subject.id);
      for (const key of ["x", "y", "width", "height"]) form.append(key, String(part[key]));
    }
    form.append("mask", await encode(values, part.width, part.height), "mask.png");
    form.append("model", subject.model);
    end(await send("corrections", form, () => {}));
  } finally {
    if (now) changed();
  }
}

/** Leave; asks where something would be lost. Returns whether it was left. */
export async function leave() {
  if (!now) return true;
  if (unsaved() && !(await sure("Throw away what you painted?", "It is not saved.", "Throw away"))) return false;
  end(null);
  return true;
}

function end(answer) {
  const { viewer, layer, frame, done } = now;
  dropCorners();
  layer.remove();
  frame?.remove();
  viewer.map.dragging.enable();
  viewer.map.doubleClickZoom.enable();
  now = null;
  delete $("stage").dataset.tool;
  $("correcting").hidden = $("tools").hidden = $("brush").hidden = true;
  done(answer);
}

function pressed(event) {
  if (!now || event.button !== 0) return;
  if (now.tool !== "brush" && now.tool !== "eraser") return;
  if (!event.isPrimary) {
    if (now.stroke) dropStroke();
    return;
  }
  $("map").setPointerCapture(event.pointerId);
  now.stroke = now.viewer.place(event);
  stamp(now.stroke, now.stroke);
}

function dragged(event) {
  paintCursor(event);
  if (!now?.stroke || !event.isPrimary) return;
  const to = now.viewer.place(event);
  stamp(now.stroke, to);
  now.stroke = to;
}

function keyed(event) {
  if (!now || event.target.matches("input[type=text], dialog *")) return;
  const command = event.ctrlKey || event.metaKey;
  const key = event.key.toLowerCase();
  if (command && (key === "z" || key === "y")) step(key === "y" || event.shiftKey ? "redo" : "undo");
  else if (command || event.altKey) return;
  else if (KEYS[key]) pick(KEYS[key]);
  else if (key === "[" || key === "]") resize(Number($("size").value) + (key === "]" ? 1 : -1));
  else if (/^[1-9]$/.test(key) && now.subject.classes[key - 1]) choose(Number(key) - 1);
  else if (key === "escape" && now.corners.length) dropCorners();
  else if (event.target === $("map") && key === " ") paintAtCross();
  else if (event.target === $("map") && key === "enter" && now.tool === "polygon") closeCorners();
  else return;
  event.preventDefault();
}

/** What Space does: the cross in the middle of the map is the pointer of who has none. */
function paintAtCross() {
  const point = now.viewer.centre();
  if (now.tool === "polygon") {
    addCorner(point);
    say(`Corner ${now.corners.length}`);
  } else if (now.tool !== "move") {
    stamp(point, point);
    endStroke();
    say(now.tool === "eraser" ? "Erased" : `Painted ${now.subject.classes[now.value].name}`);
  }
}

/** A click or a tap on the map, which is no stroke. */
export function clicked(x, y) {
  if (now?.tool === "polygon") addCorner([x, y]);
}

export function setUp() {
  const map = $("map");
  map.addEventListener("pointerdown", pressed);
  map.addEventListener("pointermove", dragged);
  for (const kind of ["pointerup", "pointercancel"]) {
    map.addEventListener(kind, (event) => {
      if (now?.stroke && event.isPrimary) endStroke();
      paintCursor(event);
    });
  }
  map.addEventListener("pointerleave", () => ($("brush").hidden = true));
  map.addEventListener("dblclick", () => now?.tool === "polygon" && closeCorners());
  document.addEventListener("keydown", keyed);
  for (const button of document.querySelectorAll("[data-tool]")) {
    button.addEventListener("click", () => pick(button.dataset.tool));
  }
  for (const button of document.querySelectorAll("[data-step]")) {
    button.addEventListener("click", () => step(button.dataset.step));
  }
  $("size").addEventListener("input", (event) => resize(Number(event.target.value)));
  $("leave").addEventListener("click", leave);
  $("correcting").addEventListener("submit", (event) => event.preventDefault());
  $("correcting").addEventListener("submit", attempt(store));
  addEventListener("beforeunload", (event) => unsaved() && event.preventDefault());
}
