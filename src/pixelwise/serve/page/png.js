// PNG files as numbers. A browser shows a palette PNG as colours; the page needs the class number of each pixel.
// PNG Specification, third edition: chunks (5), filters (9), colour types (6.1).

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const CHANNELS = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 };

/**
 * Read a PNG that is not interlaced.
 * @param {Blob} blob
 * @returns {Promise<{width: number, height: number, values: Uint8Array|Uint16Array}>} the first channel [H*W]: class
 *   numbers of a palette PNG, grey values of the others.
 */
export async function decode(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  if (SIGNATURE.some((value, i) => bytes[i] !== value)) throw new Error("This is not a PNG file.");
  const view = new DataView(bytes.buffer);
  const parts = [];
  let header = null;
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at);
    const kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const body = bytes.subarray(at + 8, at + 8 + length);
    if (kind === "IHDR") {
      header = { width: view.getUint32(at + 8), height: view.getUint32(at + 12), depth: body[8], kind: body[9] };
      if (body[12]) throw new Error("This PNG is interlaced, which the page does not read.");
    } else if (kind === "IDAT") parts.push(body);
    at += 12 + length;
  }
  const { width, height, depth, kind } = header;
  const bits = CHANNELS[kind] * depth;
  const row = Math.ceil((width * bits) / 8);
  const raw = await through(parts, new DecompressionStream("deflate"));
  const rows = unfilter(raw, row, height, Math.max(1, bits >> 3));
  return { width, height, values: firstChannel(rows, { width, height, depth, row, channels: CHANNELS[kind] }) };
}

/**
 * Write an 8-bit grey PNG.
 * @param {Uint8Array} values [H*W]
 * @returns {Promise<Blob>}
 */
export async function encode(values, width, height) {
  const rows = new Uint8Array((width + 1) * height);
  for (let y = 0; y < height; y++) rows.set(values.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  const header = new Uint8Array(13);
  new DataView(header.buffer).setUint32(0, width);
  new DataView(header.buffer).setUint32(4, height);
  header[8] = 8;
  const data = await through([rows], new CompressionStream("deflate"));
  const chunks = [chunk("IHDR", header), chunk("IDAT", data), chunk("IEND", new Uint8Array(0))];
  return new Blob([new Uint8Array(SIGNATURE), ...chunks], { type: "image/png" });
}

async function through(parts, stream) {
  return new Uint8Array(await new Response(new Blob(parts).stream().pipeThrough(stream)).arrayBuffer());
}

function unfilter(raw, row, height, step) {
  const out = new Uint8Array(row * height);
  for (let y = 0; y < height; y++) {
    const filter = raw[y * (row + 1)];
    const from = y * (row + 1) + 1;
    const to = y * row;
    for (let x = 0; x < row; x++) {
      const left = x >= step ? out[to + x - step] : 0;
      const up = y ? out[to + x - row] : 0;
      let guess = 0;
      if (filter === 1) guess = left;
      else if (filter === 2) guess = up;
      else if (filter === 3) guess = (left + up) >> 1;
      else if (filter === 4) guess = paeth(left, up, x >= step && y ? out[to + x - row - step] : 0);
      out[to + x] = raw[from + x] + guess;
    }
  }
  return out;
}

function paeth(left, up, corner) {
  const toLeft = Math.abs(up - corner);
  const toUp = Math.abs(left - corner);
  const toCorner = Math.abs(left + up - 2 * corner);
  if (toLeft <= toUp && toLeft <= toCorner) return left;
  return toUp <= toCorner ? up : corner;
}

function firstChannel(rows, { width, height, depth, row, channels }) {
  if (depth === 8 && channels === 1) return rows;
  const values = depth === 16 ? new Uint16Array(width * height) : new Uint8Array(width * height);
  const bytes = depth >> 3;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      let value;
      if (depth < 8) {
        const bit = x * depth;
        value = (rows[y * row + (bit >> 3)] >> (8 - depth - (bit & 7))) & ((1 << depth) - 1);
      } else {
        const at = y * row + x * channels * bytes;
        value = bytes === 2 ? (rows[at] << 8) | rows[at + 1] : rows[at];
      }
      values[y * width + x] = value;
    }
  }
  return values;
}

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

function chunk(kind, body) {
  const bytes = new Uint8Array(12 + body.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, body.length);
  for (let i = 0; i < 4; i++) bytes[4 + i] = kind.charCodeAt(i);
  bytes.set(body, 8);
  let crc = 0xffffffff;
  for (const byte of bytes.subarray(4, 8 + body.length)) crc = CRC[(crc ^ byte) & 255] ^ (crc >>> 8);
  view.setUint32(8 + body.length, ~crc >>> 0);
  return bytes;
}
