// The page of `pixelwise serve`: the start, what is opened, and the way between them. The address says what is shown:
// #/ the start, #/photo/1 a photo of this visit, #/scene/ID a job of the server.

import { ask, askJson } from "./api.js";
import * as correcting from "./correct.js";
import { $, attempt, calmDown, complain, count, duration, icon, make, percent, say, sure, swatch } from "./page.js";
import { asPicture, segment } from "./photo.js";
import { RUNNING, asScene, look, startJob } from "./scene.js";
import * as work from "./work.js";

const EVERY = 1000; // milliseconds between two questions after a job
const LARGE = 4e6; // bytes of a file that takes a while to send
const STATES = { waiting: "waits", running: "", done: "done", failed: "failed", cancelled: "cancelled" };

let models = [];
let offers = { corrections: true };
const photos = [];
let timer = 0;

const done = (job) => `${Math.round(job.progress * 100)} %`;
const model = () => models[$("model").selectedIndex];

async function begin() {
  work.setUp();
  setUpFiles();
  addEventListener("hashchange", attempt(route));
  $("alert").querySelector("button").addEventListener("click", calmDown);
  $("model").addEventListener("change", attempt(changeModel));
  $("cancel").addEventListener("click", attempt(cancel));
  await attempt(async () => {
    models = await askJson("models");
    offers = await askJson("settings");
    await listScenes();
    $("model").replaceChildren(...models.map((each) => make("option", { value: `${each.name}:${each.version}` }, label(each))));
    $("model").disabled = models.length < 2;
    showModel();
    await route();
  })();
}

function label(each) {
  const several = models.filter((other) => other.name === each.name).length > 1;
  return several ? `${each.name}, ${each.version}` : each.name;
}

function showModel() {
  const { network, bands, ground_resolution: metres, licence, classes } = model();
  $("about-model").hidden = false;
  $("model-name").textContent = label(model());
  const facts = [network, bands && `${bands} bands`, metres && `${Number(metres.toPrecision(2))} m a pixel`, licence];
  $("model-facts").textContent = facts.filter(Boolean).join(" · ");
  $("model-classes").replaceChildren(...classes.map((each) => make("li", {}, swatch(each.color), each.name)));
}

async function changeModel() {
  showModel();
  const shown = work.current();
  if (shown?.kind !== "photo" || !(await correcting.leave())) return;
  await busy(async () => {
    photos[shown.id - 1] = await segment(shown.file, shown.picture, model(), shown.id);
    work.show(photos[shown.id - 1], offers);
  });
}

async function route() {
  clearTimeout(timer);
  const [, kind, id] = location.hash.split("/");
  const shown = work.current();
  if (shown && (shown.kind !== kind || String(shown.id) !== id) && !(await correcting.leave())) {
    history.replaceState(null, "", `#/${shown.kind}/${shown.id}`);
    return;
  }
  if (kind === "photo" && photos[id - 1]) {
    showStage(true);
    showJob(null);
    work.show(photos[id - 1], offers);
  } else if (kind === "scene" && id) {
    try {
      await follow(decodeURIComponent(id));
    } catch (error) {
      if (error.status !== 404) throw error;
      await showStart();
      throw error;
    }
  } else await showStart();
}

/** Make room for the map, or for the start, before either is filled. */
function showStage(open) {
  $("work").hidden = $("open").hidden = !open;
  $("start").hidden = open;
}

async function showStart() {
  work.close();
  document.title = "pixelwise";
  showStage(false);
  history.replaceState(null, "", "#/"); // a photo of an earlier visit is gone
  const jobs = await askJson("jobs");
  if (location.hash !== "#/") return;
  const lines = [...photos.map(photoLine).reverse(), ...jobs.map(jobLine)];
  const list = $("opened").querySelector("ul");
  if (!list.contains(document.activeElement)) list.replaceChildren(...lines);
  $("opened").hidden = !lines.length;
  if (jobs.some((job) => RUNNING.has(job.state))) timer = setTimeout(attempt(route), EVERY);
}

function photoLine({ id, name, width, height }) {
  return make("li", {}, openLink(`#/photo/${id}`, name, `${count(width)} × ${count(height)}`));
}

function jobLine(job) {
  const size = job.width ? `${count(job.width)} × ${count(job.height)}` : "";
  const state = job.state === "running" ? done(job) : STATES[job.state];
  const remove = make("button", { type: "button", className: "icon" }, icon("close"));
  remove.setAttribute("aria-label", `Remove ${job.scene}`);
  remove.addEventListener("click", attempt(() => removeJob(job)));
  const link = openLink(`#/scene/${encodeURIComponent(job.id)}`, job.scene, [size, state].filter(Boolean).join(" · "));
  return make("li", {}, link, remove);
}

function openLink(href, name, facts) {
  return make("a", { href }, make("b", {}, name), make("span", { className: "soft" }, facts));
}

/** Offer the scenes that the operator lets people name. */
async function listScenes() {
  const scenes = await askJson("scenes");
  $("by-path").hidden = !scenes.length;
  $("scenes").replaceChildren(...scenes.map(({ path }) => make("option", { value: path })));
}

async function removeJob(job) {
  if (!(await sure(`Remove ${job.scene}?`, "Its map and parcels go from the server.", "Remove"))) return;
  await ask(`jobs/${encodeURIComponent(job.id)}`, { method: "DELETE" });
  $("choose").focus();
  await showStart();
}

/** Show a job, and ask for news of it until it has ended. */
async function follow(id) {
  const job = await askJson(`jobs/${encodeURIComponent(id)}`);
  if (location.hash !== `#/scene/${encodeURIComponent(id)}`) return;
  showStage(true);
  const shown = work.current();
  if (job.width && !(shown?.kind === "scene" && look(shown.job) === look(job))) {
    if (shown?.job?.id === id && RUNNING.has(shown.job.state) && job.state === "done") say("The map is done.");
    work.show(asScene(job), offers);
  }
  showJob(job);
  if (!RUNNING.has(job.state)) return;
  timer = setTimeout(attempt(() => follow(id)), EVERY);
}

function showJob(job) {
  const hidden = !job || job.state === "done";
  $("job").hidden = hidden;
  if (hidden) return;
  const left = job.seconds_left ? ` · about ${duration(job.seconds_left)} left` : "";
  const text = {
    waiting: "Waits for its turn",
    running: `${[job.stage, done(job)].filter(Boolean).join(" · ")}${left}`,
    cancelled: "Cancelled.",
    failed: job.error,
  };
  $("job-text").textContent = text[job.state];
  $("job").classList.toggle("failed", job.state === "failed");
  $("job-bar").value = job.progress ?? 0;
  $("job-bar").hidden = $("cancel").hidden = !RUNNING.has(job.state);
}

async function cancel() {
  const { id } = work.current();
  clearTimeout(timer);
  await ask(`jobs/${encodeURIComponent(id)}`, { method: "DELETE" });
  say("Cancelled.");
  await attempt(() => follow(id))();
}

/** Open files one after the other; the first that worked is shown. */
async function openFiles(files) {
  if (!files.length || !(await correcting.leave())) return;
  calmDown();
  let first = "";
  for (const file of files) {
    try {
      const opened = await busy(() => openFile(file));
      first ||= opened;
    } catch (error) {
      complain(files.length > 1 ? new Error(`${file.name}: ${error.message}`) : error);
    }
  }
  if (first) location.hash = first;
}

async function openFile(file) {
  const picture = await asPicture(file);
  if (picture) {
    try {
      const photo = await segment(file, picture, model(), photos.length + 1);
      photos.push(photo);
      const names = photo.classes.filter((each) => each.share).map((each) => `${each.name} ${percent(each.share)}`);
      say(`${file.name}: ${names.join(", ")}`);
      return `#/photo/${photo.id}`;
    } catch (error) {
      if (error.status !== 413) throw error; // too large to answer at once: it is mapped as a scene
    }
  }
  const stop = new AbortController();
  $("sending").querySelector("button").onclick = () => stop.abort();
  const sent = (share) => showSending(file, share);
  sent(0);
  const job = await startJob(file, model(), sent, stop.signal);
  return `#/scene/${encodeURIComponent(job.id)}`;
}

/** Show that something is on its way. */
async function busy(work) {
  showBusy(null);
  try {
    return await work();
  } finally {
    $("busy").hidden = $("sending").hidden = true;
  }
}

function showBusy(share) {
  const bar = $("busy");
  bar.hidden = false;
  bar.classList.toggle("endless", share === null || share === 1);
  share === null ? bar.removeAttribute("aria-valuenow") : bar.setAttribute("aria-valuenow", String(Math.round(share * 100)));
  bar.firstElementChild.style.width = share === null ? "" : `${share * 100}%`;
}

/** A large scene is on its way for a while, so it can be stopped. */
function showSending({ name, size }, share) {
  showBusy(share);
  $("sending").hidden = size < LARGE;
  $("sending").querySelector("p").textContent = `Sending ${name} · ${Math.floor(share * 100)} %`;
}

function setUpFiles() {
  const input = $("files");
  for (const button of [$("open"), $("choose")]) button.addEventListener("click", () => input.click());
  input.addEventListener("change", async () => {
    const files = [...input.files];
    input.value = ""; // the same file can be chosen again
    await openFiles(files);
  });
  let depth = 0;
  const over = (by) => (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    depth += by;
    $("drop-here").hidden = depth === 0;
  };
  addEventListener("dragenter", over(1));
  addEventListener("dragleave", over(-1));
  addEventListener("dragover", over(0));
  addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    $("drop-here").hidden = true;
    const folder = [...event.dataTransfer.items].some((item) => item.webkitGetAsEntry?.()?.isDirectory);
    if (folder) complain(new Error("A folder was dropped. Drop the files that are in it."));
    else openFiles([...event.dataTransfer.files]);
  });
  addEventListener("paste", (event) => event.clipboardData.files.length && openFiles([...event.clipboardData.files]));
  $("by-path").addEventListener("submit", async (event) => {
    event.preventDefault();
    await attempt(async () => {
      const job = await busy(() => startJob($("path").value.trim(), model(), () => {}));
      location.hash = `#/scene/${encodeURIComponent(job.id)}`;
    })();
  });
}

begin();
