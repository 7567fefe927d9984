// Small things that all parts of the page use: elements, sentences, questions, numbers.

export const $ = (id) => document.getElementById(id);

/** Make an element: `make("li", { className: "x" }, child, "text")`. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

export function swatch(color) {
  const square = make("i", { className: "swatch" });
  square.style.background = color;
  return square;
}

/** Tell who listens instead of looking. */
export function say(text) {
  $("said").textContent = text;
}

/** Show what went wrong until it is closed or something works again. */
export function complain(error) {
  if (error.name === "AbortError") return;
  $("alert").querySelector("p").textContent = error.message;
  $("alert").hidden = false;
}

export function calmDown() {
  $("alert").hidden = true;
}

/** Run what answers a click; a failure is shown. */
export const attempt = (work) => async (event) => {
  calmDown();
  try {
    await work(event);
  } catch (error) {
    complain(error);
  }
};

/** Ask before something is lost. */
export function sure(question, detail, yes) {
  const dialog = $("sure");
  dialog.querySelector("h2").textContent = question;
  dialog.querySelector("p").textContent = detail;
  dialog.querySelector("[value=yes]").textContent = yes;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) =>
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }),
  );
}

export const count = (number) => number.toLocaleString("en");

/** A share from 0 to 1 in percent. */
export function percent(share) {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  const value = share * 100;
  return `${value === 0 || value >= 9.95 ? Math.round(value) : value.toFixed(1)} %`;
}

export function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}
