// Parcels of a scene as outlines; a click, or Enter under the cross, shows what is known of one.

import { complain, count, make, percent, say } from "./page.js";

const L = window.L;
const WAIT = 150;
const UNITS = { area_m2: ["Area", "m²"], perim_m: ["Perimeter", "m"], area_px: ["Area", "pixels"] };
const NAMES = { compact: "Compactness", confidence: "Confidence", conf_min: "Lowest confidence" };
const SHARES = new Set(["confidence", "conf_min"]);

export class Parcels {
  /** `note(shown)` says whether some parcels are left out at this zoom. */
  constructor(viewer, subject, note) {
    this.viewer = viewer;
    this.subject = subject;
    this.note = note;
    this.shown = false;
    this.timer = 0;
    this.stop = null;
    this.features = [];
    const colours = new Map(subject.classes.map((each) => [each.name, each.color]));
    this.layer = L.geoJSON(null, {
      pane: "parcels",
      interactive: false,
      coordsToLatLng: ([x, y]) => L.latLng(y, x),
      renderer: L.canvas({ pane: "parcels" }),
      style: (feature) => ({
        color: "#fff",
        weight: 1.5,
        fillColor: colours.get(feature.properties.class) ?? "#888",
        fillOpacity: 0.15,
      }),
    });
    this.chosen = L.geoJSON(null, {
      pane: "parcels",
      interactive: false,
      coordsToLatLng: ([x, y]) => L.latLng(y, x),
      style: { color: "#fff", weight: 4, fillOpacity: 0.25 },
    });
  }

  show(on) {
    this.shown = on;
    for (const layer of [this.layer, this.chosen]) on ? layer.addTo(this.viewer.map) : layer.remove();
    if (on) this.load();
    else {
      this.viewer.map.closePopup();
      this.note(false);
    }
  }

  moved() {
    clearTimeout(this.timer);
    if (this.shown) this.timer = setTimeout(() => this.load(), WAIT);
  }

  async load() {
    this.stop?.abort();
    this.stop = new AbortController();
    const { x, y, width, height } = this.viewer.seen();
    if (!width || !height) return;
    try {
      const found = await this.subject.parcels([x, y, x + width, y + height], this.stop.signal);
      this.features = found.features;
      this.layer.clearLayers().addData(found);
      this.note(Boolean(found.truncated));
    } catch (error) {
      complain(error);
    }
  }

  /** Show the parcel at this pixel; false where there is none. */
  choose(x, y) {
    const found = this.shown && this.features.find(({ geometry }) => holds(geometry, x, y));
    this.chosen.clearLayers();
    if (!found) return false;
    this.chosen.addData(found);
    const rows = Object.entries(found.properties).flatMap(([key, value]) => row(key, value));
    const list = make("dl", {}, ...rows.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]));
    const title = make("h3", {}, String(found.properties.class ?? "Parcel"));
    L.popup({ autoPanPadding: [60, 60] }).setLatLng([y, x]).setContent(make("div", {}, title, list)).openOn(this.viewer.map);
    this.viewer.map.once("popupclose", () => this.chosen.clearLayers());
    say([title.textContent, ...rows.map((each) => each.join(" "))].join(", "));
    return true;
  }

  close() {
    clearTimeout(this.timer);
    this.stop?.abort();
  }
}

function row(key, value) {
  if (value === null || value === "" || key === "class" || key === "class_id") return [];
  if (UNITS[key]) return [[UNITS[key][0], `${count(Math.round(value))} ${UNITS[key][1]}`]];
  const name = NAMES[key] ?? key.replaceAll("_", " ");
  if (SHARES.has(key)) return [[name, percent(value)]];
  return [[name, typeof value === "number" ? count(Number(value.toPrecision(3))) : String(value)]];
}

function holds({ type, coordinates }, x, y) {
  const polygons = type === "MultiPolygon" ? coordinates : type === "Polygon" ? [coordinates] : [];
  return polygons.some((rings) => rings.filter((ring) => inside(ring, x, y)).length % 2 === 1);
}

function inside(ring, x, y) {
  let within = false;
  ring.forEach(([x0, y0], i) => {
    const [x1, y1] = ring[(i + 1) % ring.length];
    if (y0 <= y !== y1 <= y && x < x0 + ((y - y0) * (x1 - x0)) / (y1 - y0)) within = !within;
  });
  return within;
}
