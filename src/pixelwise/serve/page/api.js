// Calls of the server. Errors come as ServerError; where a token is needed, the page asks for it once.

const KEY = "pixelwise-token";
let token = sessionStorage.getItem(KEY) ?? "";
let asking = null;

export class ServerError extends Error {
  constructor(status, message, fix = "") {
    super([message, fix].filter(Boolean).join(" "));
    this.status = status;
  }
}

export const hasToken = () => token !== "";

/**
 * Ask the server.
 * @param {string} path relative to the page, such as "jobs/1"
 * @param {{method?: string, body?: FormData, signal?: AbortSignal}} options
 * @returns {Promise<Response>} one that is good
 */
export async function ask(path, options = {}) {
  for (;;) {
    const used = token;
    let answer;
    try {
      answer = await fetch(path, { ...options, headers: used ? { Authorization: `Bearer ${used}` } : {} });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ServerError(0, "The server does not answer.", "Check that it runs, then try again.");
    }
    if (answer.ok) return answer;
    if (answer.status === 401) await askForToken(used);
    else throw await errorOf(answer.status, await answer.text());
  }
}

export const askJson = async (path, options) => (await ask(path, options)).json();
export const askBlob = async (path, options) => (await ask(path, options)).blob();

/**
 * Send a form with files; `advance` gets the share that is sent, 0 to 1.
 * @returns {Promise<any>} the answer's JSON
 */
export async function send(path, form, advance, signal) {
  for (;;) {
    const used = token;
    const { status, text } = await new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open("POST", path);
      if (used) request.setRequestHeader("Authorization", `Bearer ${used}`);
      request.upload.onprogress = (event) => event.lengthComputable && advance(event.loaded / event.total);
      request.onload = () => resolve({ status: request.status, text: request.responseText });
      request.onerror = () =>
        reject(new ServerError(0, "The connection broke while the file was sent.", "Try again."));
      request.onabort = () => reject(new DOMException("The upload was stopped.", "AbortError"));
      signal?.addEventListener("abort", () => request.abort());
      request.send(form);
    });
    if (status >= 200 && status < 300) return JSON.parse(text);
    if (status === 401) await askForToken(used);
    else throw await errorOf(status, text);
  }
}

/** Let the browser save something: a Blob, or a path of the server. */
export async function save(what, name) {
  const open = typeof what === "string" && hasToken() ? await askBlob(what) : what;
  const link = document.createElement("a");
  link.href = typeof open === "string" ? open : URL.createObjectURL(open);
  link.download = name;
  link.click();
  if (typeof open !== "string") setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function errorOf(status, text) {
  try {
    const { error, detail } = JSON.parse(text);
    if (error?.message) return new ServerError(status, error.message, error.fix);
    if (typeof error === "string") return new ServerError(status, error);
    if (detail) return new ServerError(status, typeof detail === "string" ? detail : JSON.stringify(detail));
  } catch {
    // A proxy in front answers with a page of its own.
  }
  const said = { 413: "The file is too large for this server.", 503: "The server is busy. Try again in a moment." };
  return new ServerError(status, said[status] ?? `The server answered with status ${status}.`);
}

function askForToken(used) {
  if (token !== used) return Promise.resolve(); // another call has asked meanwhile
  asking ??= new Promise((resolve, reject) => {
    const dialog = document.querySelector("#token");
    dialog.querySelector(".wrong").hidden = used === "";
    dialog.returnValue = "";
    dialog.showModal();
    dialog.addEventListener(
      "close",
      () => {
        asking = null;
        if (dialog.returnValue !== "use") return reject(new ServerError(401, "This server needs a token."));
        token = dialog.querySelector("input").value.trim();
        sessionStorage.setItem(KEY, token);
        resolve();
      },
      { once: true },
    );
  });
  return asking;
}
