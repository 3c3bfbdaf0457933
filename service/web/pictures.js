// Files <-> pixels in the browser, PSNR, and the browser's own JPEG and WebP at about a given size.

import { post } from "./api.js";

const MAGIC = [0x8b, 0x42, 0x49, 0x4a];
const EXACT = { colorSpaceConversion: "none", premultiplyAlpha: "none" };

export async function isStream(blob) {
  const head = new Uint8Array(await blob.slice(0, MAGIC.length).arrayBuffer());
  return MAGIC.every((byte, i) => head[i] === byte);
}

export function canvasOf(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

const contextOf = (canvas) => canvas.getContext("2d", { willReadFrequently: true });

/** A file as a canvas; what the browser cannot read goes through the service, losslessly. */
export async function open(blob, hooks) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, EXACT);
  } catch {
    const stream = await post("encode", blob, { quality: 100 }, hooks);
    bitmap = await createImageBitmap((await post("decode", stream.blob, { format: "png" }, hooks)).blob, EXACT);
  }
  const canvas = canvasOf(bitmap.width, bitmap.height);
  contextOf(canvas).drawImage(bitmap, 0, 0);
  bitmap.close();
  return canvas;
}

export const pixelsOf = (canvas) => contextOf(canvas).getImageData(0, 0, canvas.width, canvas.height).data;

/** PSNR in dB over red, green and blue of two canvases of one size; Infinity if equal. */
export function psnr(a, b) {
  const [p, q] = [pixelsOf(a), pixelsOf(b)];
  let squares = 0;
  for (let i = 0; i < p.length; i += 4) {
    for (let c = i; c < i + 3; c++) squares += (p[c] - q[c]) ** 2;
  }
  return squares === 0 ? Infinity : 10 * Math.log10((255 ** 2 * 3 * (p.length / 4)) / squares);
}

/** How many pixels differ, alpha included. */
export function differing(a, b) {
  const [p, q] = [new Uint32Array(pixelsOf(a).buffer), new Uint32Array(pixelsOf(b).buffer)];
  let pixels = 0;
  for (let i = 0; i < p.length; i++) if (p[i] !== q[i]) pixels++;
  return pixels;
}

export const blobOf = (canvas, type, quality) =>
  new Promise((resolve, reject) => canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error(`${type} failed`))), type, quality));

/** The middle of a picture, at most `side` pixels each way, over white: JPEG has no alpha. */
export function middle(canvas, side) {
  const [width, height] = [Math.min(side, canvas.width), Math.min(side, canvas.height)];
  const cut = canvasOf(width, height);
  const context = contextOf(cut);
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(canvas, -((canvas.width - width) >> 1), -((canvas.height - height) >> 1));
  return cut;
}

/** The picture moved right and down by whole pixels; what leaves comes back on the other side. */
export function moved(canvas, pixels) {
  const { width, height } = canvas;
  const [x, y] = [pixels % width, pixels % height];
  const shifted = canvasOf(width, height);
  const context = contextOf(shifted);
  for (const [dx, dy] of [[x, y], [x - width, y], [x, y - height], [x - width, y - height]]) context.drawImage(canvas, dx, dy);
  return shifted;
}

/**
 * The browser's file of a type that comes closest to a size without being longer, or else its shortest.
 * @returns {Promise<{blob: Blob, quality: number} | null>} null if the browser cannot write the type
 */
export async function nearest(canvas, type, bytes) {
  // At quality 1 Chromium writes lossless WebP, which is another codec.
  const at = async (percent) => ({ blob: await blobOf(canvas, type, percent / 100), quality: percent / 100 });
  let best = await at(0);
  if (best.blob.type !== type) return null;
  let [low, high] = [1, 99];
  while (low <= high) {
    const percent = (low + high) >> 1;
    const tried = await at(percent);
    if (tried.blob.size <= bytes) {
      best = tried;
      low = percent + 1;
    } else {
      high = percent - 1;
    }
  }
  return best;
}
