// What lies on the map: pictures, and numbers (class or confidence) that are coloured here, so that a class can be
// hidden without asking the server again. Photos are one canvas, scenes are tiles.

import { ask } from "./api.js";
import { decode } from "./png.js";

const L = window.L;
export const TILE = 256;

/** The zoom at which a pixel of the map is a pixel of the image; zoom 0 shows it in one tile. */
export const nativeZoom = (width, height) => Math.max(0, Math.ceil(Math.log2(Math.max(width, height) / TILE)));

/** Coordinates of the image: latitude is the row, longitude the column, both from the upper left corner. */
export function imageCoordinates(width, height) {
  const scale = 1 / 2 ** nativeZoom(width, height);
  return L.extend({}, L.CRS.Simple, { transformation: new L.Transformation(scale, 0, scale, 0) });
}

export const boundsOf = (x, y, width, height) => L.latLngBounds([y, x], [y + height, x + width]);

/** Colours by class number, as a canvas holds them (ABGR); 0 is transparent. */
export function classColours(classes, hidden) {
  const table = new Uint32Array(65536);
  classes.forEach(({ color }, i) => {
    if (!hidden.has(i)) table[i] = packed(parseInt(color.slice(1), 16));
  });
  return table;
}

// From unsure to sure, of one lightness order and readable for the colour-blind: dark blue, grey, yellow (cividis:
// Nuñez, Anderton and Renslow, 2018, at five places).
export const CONFIDENCE = ["#00224e", "#434e6c", "#7d7c78", "#bcae6c", "#fee838"];

/** Colours of the confidences 0 to 255. */
export function confidenceColours() {
  const stops = CONFIDENCE.map((color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16)));
  return Uint32Array.from({ length: 256 }, (_, value) => {
    const place = (value / 255) * (stops.length - 1);
    const i = Math.min(stops.length - 2, Math.floor(place));
    const [r, g, b] = stops[i].map((low, band) => Math.round(low + (place - i) * (stops[i + 1][band] - low)));
    return packed((r << 16) | (g << 8) | b);
  });
}

const packed = (rgb) => (0xff000000 | ((rgb & 255) << 16) | (rgb & 0xff00) | (rgb >> 16)) >>> 0;

/** Draw numbers [H*W] on a canvas by a table of colours; a box [left, top, right, bottom] limits it. */
export function draw(canvas, values, table, box = [0, 0, canvas.width, canvas.height]) {
  const [left, top, right, bottom] = box;
  if (left >= right || top >= bottom) return;
  const pixels = new Uint32Array((right - left) * (bottom - top));
  for (let y = top, i = 0; y < bottom; y++) {
    for (let x = left; x < right; x++) pixels[i++] = table[values[y * canvas.width + x]];
  }
  const bytes = new Uint8ClampedArray(pixels.buffer);
  canvas.getContext("2d").putImageData(new ImageData(bytes, right - left, bottom - top), left, top);
}

export function newCanvas(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}

/** A canvas as a layer. Leaflet's SVG overlay lays any element over the map. */
export function canvasLayer(canvas, bounds, pane) {
  return L.svgOverlay(canvas, bounds, { pane, className: "pixels" });
}

/** Numbers of a photo as a layer that can be recoloured. */
export function photoNumbers(values, width, height, table, pane) {
  const canvas = newCanvas(width, height);
  const layer = canvasLayer(canvas, boundsOf(0, 0, width, height), pane);
  layer.recolour = (colours) => draw(canvas, values, colours);
  layer.recolour(table);
  return layer;
}

/** Numbers of a scene, by tiles: `url(z, x, y)` is a PNG of the server. */
export function sceneNumbers(url, { width, height }, table, pane) {
  const layer = tiles(url, { width, height }, pane, async (canvas, blob) => {
    const { values, ...size } = await decode(blob);
    Object.assign(canvas, size);
    canvas.numbers = values;
    draw(canvas, values, layer.colours);
  });
  layer.colours = table;
  layer.recolour = (colours) => {
    layer.colours = colours;
    for (const canvas of layer.living) if (canvas.numbers) draw(canvas, canvas.numbers, colours);
  };
  return layer;
}

/** Pictures of a scene, by tiles. */
export function scenePicture(url, size, pane) {
  return tiles(url, size, pane, async (canvas, blob) => {
    const picture = await createImageBitmap(blob);
    Object.assign(canvas, { width: picture.width, height: picture.height });
    canvas.getContext("2d").drawImage(picture, 0, 0);
  });
}

const Tiles = L.GridLayer.extend({
  createTile(coords, done) {
    const canvas = newCanvas(TILE, TILE);
    canvas.className = "pixels";
    const stop = (canvas.stop = new AbortController());
    this.living.add(canvas);
    ask(this.url(coords.z, coords.x, coords.y), { signal: stop.signal })
      .then((answer) => answer.blob())
      .then((blob) => blob.size && this.paint(canvas, blob))
      .then(() => done(null, canvas))
      // A tile outside the scene has no picture.
      .catch((error) => done(error.status === 404 ? null : error, canvas));
    return canvas;
  },
});

function tiles(url, { width, height }, pane, paint) {
  const layer = new Tiles({
    pane,
    tileSize: TILE,
    minNativeZoom: 0,
    maxNativeZoom: nativeZoom(width, height),
    minZoom: -8,
    maxZoom: 32,
    bounds: boundsOf(0, 0, width, height),
    noWrap: true,
    keepBuffer: 1,
  });
  Object.assign(layer, { url, paint, living: new Set() });
  layer.on("tileunload", ({ tile }) => {
    tile.stop.abort();
    layer.living.delete(tile);
  });
  return layer;
}
