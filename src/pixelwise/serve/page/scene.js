// A scene: the server makes a map of it as a job, and gives what is seen of it as tiles.

import { askBlob, askJson, send } from "./api.js";
import { TILE, confidenceColours, nativeZoom, sceneNumbers, scenePicture } from "./layers.js";
import { decode } from "./png.js";

export const RUNNING = new Set(["waiting", "running"]);

/** Send a scene, or name one on the server, and return its job. */
export function startJob(scene, { name, version }, advance, signal) {
  const form = new FormData();
  if (typeof scene === "string") form.append("path", scene);
  else form.append("scene", scene, scene.name);
  form.append("model", name);
  form.append("version", version);
  return send("jobs", form, advance, signal);
}

const SMALL = 4096;

/** Whether the scene can be looked at: the server first makes a small copy of a large one. */
const visible = ({ state, stage, width, height }) =>
  Math.max(width, height) <= SMALL || !(state === "waiting" || stage === "Reading the scene");

/** What the map and the panel show of a job; they are filled anew when it differs. */
export const look = (job) => [job.id, job.state, job.width, job.height, visible(job)].join();

/** Return a job as what `work.js` shows. */
export function asScene(job) {
  const { id, width, height } = job;
  const base = `jobs/${encodeURIComponent(id)}`;
  const url = (kind) => (z, x, y) => `${base}/tiles/${kind}/${z}/${x}/${y}.png`;
  const stem = job.scene.replace(/\.[^.]+$/, "");
  const files = job.files ?? {};
  const downloads = [
    { text: "Map", kind: "GeoTIFF", name: `${stem}.map.tif`, get: files.map },
    { text: "Confidence", kind: "GeoTIFF", name: `${stem}.confidence.tif`, get: files.confidence },
    { text: "Parcels", kind: "GeoPackage", name: `${stem}.parcels.gpkg`, get: files.parcels },
  ];
  return {
    kind: "scene",
    id,
    job,
    name: job.scene,
    ...{ model: job.model, version: job.version, width, height, notes: job.notes },
    classes: job.state === "done" ? job.classes : [],
    layers: {
      image: visible(job) ? (pane) => scenePicture(url("scene"), { width, height }, pane) : null,
      classes: (colours, pane) => sceneNumbers(url("map"), { width, height }, colours, pane, job.classes),
      confidence: files.confidence
        ? (pane) => sceneNumbers(url("confidence"), { width, height }, confidenceColours(254), pane)
        : null,
    },
    at: (x, y, signal) => askJson(`${base}/pixel?x=${x}&y=${y}`, { signal }),
    labels: (x, y, w, h) => labelsOf(url("map"), nativeZoom(width, height), { x, y, width: w, height: h }),
    parcels: files.parcels ? (box, signal) => askJson(`${base}/parcels?bbox=${box.join(",")}`, { signal }) : null,
    downloads: downloads.filter((each) => each.get),
  };
}

async function labelsOf(url, zoom, { x, y, width, height }) {
  const labels = new Uint8Array(width * height).fill(255);
  const one = async (column, row) => {
    const blob = await askBlob(url(zoom, column, row));
    if (!blob.size) return;
    const tile = await decode(blob);
    for (let v = 0; v < tile.height; v++) {
      const to = row * TILE + v - y;
      if (to < 0 || to >= height) continue;
      for (let u = 0; u < tile.width; u++) {
        const across = column * TILE + u - x;
        if (across >= 0 && across < width) labels[to * width + across] = Math.min(255, tile.values[v * tile.width + u]);
      }
    }
  };
  const all = [];
  for (let row = Math.floor(y / TILE); row * TILE < y + height; row++) {
    for (let column = Math.floor(x / TILE); column * TILE < x + width; column++) all.push(one(column, row));
  }
  await Promise.all(all);
  return labels;
}
