// A photo: the server answers at once with the class of every pixel.

import { askBlob, askJson } from "./api.js";
import { boundsOf, photoNumbers } from "./layers.js";
import { decode } from "./png.js";

const SCENES = /\.(tiff?|vrt|jp2|img|nc|hdf5?|h5|grd|asc)$/i;

/** Return the file as a picture, or null for what a browser does not show: that is a scene. */
export async function asPicture(file) {
  if (SCENES.test(file.name)) return null;
  const picture = new Image();
  picture.src = URL.createObjectURL(file);
  try {
    await picture.decode();
    return picture;
  } catch {
    URL.revokeObjectURL(picture.src);
    return null;
  }
}

/** Ask for the classes of a photo, and return it as what `work.js` shows. */
export async function segment(file, picture, model, id) {
  const answer = await askJson("segment", { method: "POST", body: form(file, model, "json", "labels,confidence") });
  const { width, height } = answer;
  const files = { labels: png(answer.labels), confidence: png(answer.confidence) };
  const labels = (await decode(files.labels)).values;
  const sure = (await decode(files.confidence)).values;
  const stem = file.name.replace(/\.[^.]+$/, "");
  const fetched = (output) => () => askBlob("segment", { method: "POST", body: form(file, model, output) });
  return {
    kind: "photo",
    id,
    name: file.name,
    file,
    picture,
    ...{ model, version: answer.version, width, height, classes: answer.classes },
    layers: {
      image: (pane) => window.L.imageOverlay(picture.src, boundsOf(0, 0, width, height), { pane, className: "picture" }),
      classes: (colours, pane) => photoNumbers(labels, width, height, colours, pane),
      confidence: (colours, pane) => photoNumbers(sure, width, height, colours, pane),
    },
    at: async (x, y) => ({ class: labels[y * width + x], confidence: sure[y * width + x] / 255 }),
    labels: async () => labels,
    downloads: [
      { text: "Classes", kind: "PNG", name: `${stem}.png`, get: async () => files.labels },
      { text: "Confidence", kind: "PNG", name: `${stem}.confidence.png`, get: async () => files.confidence },
      { text: "Overlay", kind: "PNG", name: `${stem}.overlay.png`, get: fetched("overlay") },
      { text: "Polygons", kind: "GeoJSON", name: `${stem}.geojson`, get: fetched("geojson") },
    ],
  };
}

function form(file, model, output, include) {
  const body = new FormData();
  body.append("image", file, file.name);
  body.append("model", model);
  body.append("output", output);
  if (include) body.append("include", include);
  return body;
}

function png(text) {
  return new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], { type: "image/png" });
}
