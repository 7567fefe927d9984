// The map: an image of any size to move and zoom, what lies over it, the swipe, and what is under the pointer. For who
// uses no pointer, a cross in the middle takes its place while the map has the focus.

import { boundsOf, imageCoordinates, nativeZoom } from "./layers.js";

const L = window.L;
const PANES = { image: 200, classes: 350, confidence: 350, painted: 380, parcels: 400 };
const SWIPED = ["classes", "confidence"];
const calm = matchMedia("(prefers-reduced-motion: reduce)");

export class Viewer {
  /**
   * @param {HTMLElement} element
   * @param {{width: number, height: number}} size in pixels
   * @param {{pointed: (x: number, y: number) => void, left: () => void, centred: (x: number, y: number) => void,
   *   chosen: (x: number, y: number) => void, moved: () => void}} says where in the image, in pixels
   */
  constructor(element, size, says) {
    this.element = element;
    this.size = size;
    this.native = nativeZoom(size.width, size.height);
    this.bounds = boundsOf(0, 0, size.width, size.height);
    this.map = L.map(element, {
      crs: imageCoordinates(size.width, size.height),
      zoomControl: false,
      attributionControl: false,
      zoomSnap: 0.25,
      wheelPxPerZoomLevel: 100,
      minZoom: -2,
      maxZoom: this.native + 5,
      maxBounds: this.bounds.pad(0.5),
      zoomAnimation: !calm.matches,
      fadeAnimation: false,
      inertia: !calm.matches,
    });
    for (const [name, z] of Object.entries(PANES)) this.map.createPane(name).style.zIndex = String(z);
    this.swipe = null;
    this.fit();
    this.map.on("move zoom resize", () => this.clip());
    this.map.on("mousemove", ({ latlng }) => says.pointed(latlng.lng, latlng.lat));
    this.map.on("mouseout", () => says.left());
    this.map.on("click", ({ latlng }) => says.chosen(latlng.lng, latlng.lat));
    this.map.on("moveend", () => {
      says.moved();
      if (element.matches(":focus-visible")) says.centred(...this.centre());
    });
    this.resized = new ResizeObserver(() => this.map.invalidateSize({ pan: false }));
    this.resized.observe(element);
  }

  close() {
    this.resized.disconnect();
    this.map.remove();
  }

  fit() {
    this.map.fitBounds(this.bounds, { animate: false, padding: [12, 12] });
  }

  /** Show a part of the image, with room around it. */
  show(x, y, width, height) {
    this.map.fitBounds(boundsOf(x, y, width, height), { animate: false, padding: [12, 12] });
  }

  zoom(by) {
    this.map.setZoom(this.map.getZoom() + by);
  }

  centre() {
    const { lat, lng } = this.map.getCenter();
    return [lng, lat];
  }

  /** What is seen of the image: x, y, width, height in pixels. */
  seen() {
    const box = this.map.getBounds();
    const x = Math.max(0, Math.floor(box.getWest()));
    const y = Math.max(0, Math.floor(Math.min(box.getNorth(), box.getSouth())));
    const right = Math.min(this.size.width, Math.ceil(box.getEast()));
    const bottom = Math.min(this.size.height, Math.ceil(Math.max(box.getNorth(), box.getSouth())));
    return { x, y, width: Math.max(0, right - x), height: Math.max(0, bottom - y) };
  }

  /** Where an event is, in pixels of the image. */
  place(event) {
    const { lat, lng } = this.map.mouseEventToLatLng(event);
    return [lng, lat];
  }

  /** Pixels of the screen for a pixel of the image. */
  scale() {
    return 2 ** (this.map.getZoom() - this.native);
  }

  /** How strongly a pane shows, 0 to 1. */
  fade(pane, opacity) {
    this.map.getPane(pane).style.opacity = String(opacity);
  }

  /** Show classes and confidence right of this share of the width; null: everywhere. */
  setSwipe(share) {
    this.swipe = share;
    this.clip();
  }

  clip() {
    const { x, y } = this.map.getSize();
    const from = this.map.containerPointToLayerPoint([(this.swipe ?? 0) * x, 0]);
    const to = this.map.containerPointToLayerPoint([x, y]);
    const shape = `polygon(${from.x}px ${from.y}px, ${to.x}px ${from.y}px, ${to.x}px ${to.y}px, ${from.x}px ${to.y}px)`;
    for (const pane of SWIPED) this.map.getPane(pane).style.clipPath = this.swipe === null ? "" : shape;
  }
}

/** The handle of the swipe: dragged, or moved by the arrow keys. */
export function swipeHandle(handle, area, moved) {
  const set = (share) => {
    const kept = Math.min(1, Math.max(0, share));
    handle.style.left = `${kept * 100}%`;
    handle.setAttribute("aria-valuenow", String(Math.round(kept * 100)));
    moved(kept);
  };
  const drag = (event) => {
    const box = area.getBoundingClientRect();
    set((event.clientX - box.left) / box.width);
  };
  handle.addEventListener("pointerdown", (event) => {
    handle.setPointerCapture(event.pointerId);
    handle.addEventListener("pointermove", drag);
  });
  handle.addEventListener("lostpointercapture", () => handle.removeEventListener("pointermove", drag));
  handle.addEventListener("keydown", (event) => {
    const now = Number(handle.getAttribute("aria-valuenow")) / 100;
    const goal = { ArrowLeft: now - 0.02, ArrowRight: now + 0.02, Home: 0, End: 1 }[event.key];
    if (goal === undefined) return;
    event.preventDefault();
    set(goal);
  });
  return set;
}
