// What a person paints: class numbers, and UNTOUCHED where nothing was painted. It knows no page and no map.

export const UNTOUCHED = 255;
const KEPT_STEPS = 100;

export class Mask {
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.values = new Uint8Array(width * height).fill(UNTOUCHED);
    this.kept = this.values.slice(); // as it was before the stroke that is being painted
    this.past = [];
    this.future = [];
    this.changed = null; // [left, top, right, bottom] of the stroke
  }

  /** Paint the pixels whose centres are within size / 2 of the line from [x, y] to [x, y], in image coordinates. */
  line(from, to, size, value) {
    // A brush of one pixel paints the pixel that it is in, wherever in it the pointer is.
    if (size <= 1) [from, to] = [from, to].map((point) => point.map((each) => Math.floor(each) + 0.5));
    const radius = Math.max(size, 1) / 2;
    const [left, right] = span(from[0], to[0], radius, this.width);
    const [top, bottom] = span(from[1], to[1], radius, this.height);
    const dx = to[0] - from[0];
    const dy = to[1] - from[1];
    const length = dx * dx + dy * dy;
    for (let y = top; y < bottom; y++) {
      for (let x = left; x < right; x++) {
        const px = x + 0.5 - from[0];
        const py = y + 0.5 - from[1];
        const along = length ? Math.min(1, Math.max(0, (px * dx + py * dy) / length)) : 0;
        const away = (px - along * dx) ** 2 + (py - along * dy) ** 2;
        if (away <= radius * radius) this.values[y * this.width + x] = value;
      }
    }
    this.touch(left, top, right, bottom);
  }

  /** Fill a polygon [[x, y], ...]: pixels whose centres are inside, by the even-odd rule. */
  polygon(points, value) {
    const [top, bottom] = bounds(points.map((point) => point[1]), this.height);
    const [left, right] = bounds(points.map((point) => point[0]), this.width);
    for (let y = top; y < bottom; y++) {
      const crossings = [];
      points.forEach(([x0, y0], i) => {
        const [x1, y1] = points[(i + 1) % points.length];
        if (y0 <= y + 0.5 !== y1 <= y + 0.5) crossings.push(x0 + ((y + 0.5 - y0) * (x1 - x0)) / (y1 - y0));
      });
      crossings.sort((a, b) => a - b);
      for (let i = 0; i + 1 < crossings.length; i += 2) {
        const first = Math.max(left, Math.ceil(crossings[i] - 0.5));
        const last = Math.min(right, Math.ceil(crossings[i + 1] - 0.5));
        if (first < last) this.values.fill(value, y * this.width + first, y * this.width + last);
      }
    }
    this.touch(left, top, right, bottom);
  }

  /** End a stroke: what it changed is one step for undo. */
  commit() {
    if (!this.changed) return;
    const box = this.changed;
    this.changed = null;
    const before = this.cut(this.kept, box);
    const after = this.cut(this.values, box);
    if (before.every((value, i) => value === after[i])) return;
    this.put(this.kept, box, after);
    this.past.push({ box, before, after });
    if (this.past.length > KEPT_STEPS) this.past.shift();
    this.future = [];
  }

  undo() {
    return this.step(this.past, this.future, "before");
  }

  redo() {
    return this.step(this.future, this.past, "after");
  }

  get empty() {
    return this.values.every((value) => value === UNTOUCHED);
  }

  /** Return the mask with another value where nothing was painted, pixel by pixel. */
  over(labels) {
    return this.values.map((value, i) => (value === UNTOUCHED ? Math.min(labels[i], UNTOUCHED) : value));
  }

  step(from, to, which) {
    const step = from.pop();
    if (!step) return null;
    to.push(step);
    this.put(this.values, step.box, step[which]);
    this.put(this.kept, step.box, step[which]);
    return step.box;
  }

  touch(left, top, right, bottom) {
    if (left >= right || top >= bottom) return;
    const [l, t, r, b] = this.changed ?? [left, top, right, bottom];
    this.changed = [Math.min(l, left), Math.min(t, top), Math.max(r, right), Math.max(b, bottom)];
  }

  cut(values, [left, top, right, bottom]) {
    const out = new Uint8Array((right - left) * (bottom - top));
    for (let y = top; y < bottom; y++) {
      out.set(values.subarray(y * this.width + left, y * this.width + right), (y - top) * (right - left));
    }
    return out;
  }

  put(values, [left, top, right, bottom], part) {
    const wide = right - left;
    for (let y = top; y < bottom; y++) {
      values.set(part.subarray((y - top) * wide, (y - top + 1) * wide), y * this.width + left);
    }
  }
}

function span(a, b, radius, limit) {
  return bounds([Math.min(a, b) - radius, Math.max(a, b) + radius], limit);
}

function bounds(numbers, limit) {
  const low = Math.floor(numbers.reduce((a, b) => Math.min(a, b)));
  const high = Math.ceil(numbers.reduce((a, b) => Math.max(a, b)));
  return [Math.min(limit, Math.max(0, low)), Math.min(limit, Math.max(0, high))];
}
