// A scene: the server makes a map of it as a job, and gives what is seen of it as tiles.

import { askBlob, askJson, send } from "./api.js";
import { TILE, nativeZoom, sceneNumbers, scenePicture } from "./layers.js";
import { decode } from "./png.js";

export const RUNNING = new Set(["waiting", "running"]);

/** Send a scene, or name one on the server, and return its job. */
export function startJob(scene, model, advance) {
  const form = new FormData();
  if (typeof scene === "string") form.append("path", scene);
  else form.append("scene", scene, scene.name);
  form.append("model", model);
  form.append("parcels", "true");
  form.append("confidence", "true");
  return send("jobs", form, advance);
}

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
    ...{ model: job.model, width, height, classes: job.classes ?? [] },
    layers: {
      image: (pane) => scenePicture(url("scene"), { width, height }, pane),
      classes: (colours, pane) => sceneNumbers(url("map"), { width, height }, colours, pane),
      confidence: files.confidence
        ? (colours, pane) => sceneNumbers(url("confidence"), { width, height }, colours, pane)
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
    const tile = await decode(await askBlob(url(zoom, column, row)));
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
