// Series of numbers by generation -> a line plot as SVG, named at its lines' ends as well as by dash and colour.

import { element, fixed } from "./format.js";

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [640, 300, 48, 72, 16, 40];

/**
 * @param {{name: string, key: string, values: number[]}[]} series PSNR in dB; Infinity is drawn at the top
 * @param {number} generations length of the axis
 */
export function plot(series, generations) {
  const finite = series.flatMap((s) => s.values).filter(Number.isFinite);
  const low = Math.floor(Math.min(...finite, 100) - 0.5);
  const high = Math.max(low + 2, Math.ceil(Math.max(...finite, 0) + 0.5));
  const x = (generation) => LEFT + ((WIDTH - LEFT - RIGHT) * (generation - 1)) / Math.max(1, generations - 1);
  const y = (db) => TOP + ((HEIGHT - TOP - BOTTOM) * (high - Math.min(db, high))) / (high - low);
  const said = series.filter((s) => s.values.length)
    .map((s) => `${s.name} from ${fixed(s.values[0], 2)} to ${fixed(s.values.at(-1), 2)} dB`).join(", ");
  const picture = element("svg:svg", {
    class: "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `PSNR by generation: ${said}`,
  });
  picture.append(...rows(low, high, y), ...columns(generations, x));
  const ends = apart(series.filter((s) => s.values.length).map((s) => ({ s, y: y(s.values.at(-1)) })));
  for (const { s, y: nameY } of ends) {
    const points = s.values.map((db, i) => [x(i + 1), y(db)]);
    picture.append(element("svg:polyline", { class: `line ${s.key}`, points: points.map((p) => p.join()).join(" ") }));
    picture.append(...points.map(([cx, cy]) => element("svg:circle", { class: s.key, cx, cy, r: 3 })));
    picture.append(element("svg:text", { class: "name", x: points.at(-1)[0] + 8, y: nameY + 4 }, s.name));
  }
  return picture;
}

function rows(low, high, y) {
  const step = [0.5, 1, 2, 5, 10, 20].find((s) => (high - low) / s <= 6) ?? 20;
  const parts = [element("svg:text", { x: 4, y: 12 }, "dB")];
  for (let db = Math.ceil(low / step) * step; db <= high; db += step) {
    parts.push(element("svg:line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(db), y2: y(db) }));
    parts.push(element("svg:text", { x: LEFT - 8, y: y(db) + 4, "text-anchor": "end" }, String(db)));
  }
  return parts;
}

function columns(generations, x) {
  const step = [1, 2, 5, 10].find((s) => generations / s <= 10) ?? 10;
  const parts = [element("svg:text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, "generation")];
  for (let g = 1; g <= generations; g += g === 1 && step > 1 ? step - 1 : step) {
    parts.push(element("svg:text", { x: x(g), y: HEIGHT - 22, "text-anchor": "middle" }, String(g)));
  }
  return parts;
}

/** Move names at the ends of lines apart, so that none covers another. */
function apart(ends) {
  ends.sort((a, b) => a.y - b.y);
  for (let i = 1; i < ends.length; i++) ends[i].y = Math.max(ends[i].y, ends[i - 1].y + 16);
  return ends;
}
