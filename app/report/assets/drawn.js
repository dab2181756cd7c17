// A structure drawn on a canvas: a smooth trace through its CA atoms, near parts over far ones.

const PIECES = 6; // of the curve from one CA to the next
const WIDTHS = { H: 1.5, E: 1.5, L: 0.8 };

// The middle of the CA atoms and the distance of the farthest from it, angstrom.
function extent(frame) {
  const middle = [0, 0, 0];
  let count = 0;
  for (let i = 0; i < frame.residues; i += 1) {
    const at = caOf(frame, i);
    if (Number.isNaN(frame.points[at])) continue;
    for (let k = 0; k < 3; k += 1) middle[k] += frame.points[at + k];
    count += 1;
  }
  for (let k = 0; k < 3; k += 1) middle[k] /= Math.max(1, count);
  let radius = 1;
  for (let i = 0; i < frame.residues; i += 1) {
    const at = caOf(frame, i);
    const apart = Math.hypot(...middle.map((value, k) => frame.points[at + k] - value));
    if (apart > radius) radius = apart;
  }
  return { middle, radius };
}

// A rotation, as three rows, that lays the longest way through the structure across the picture.
function facing(frame, { middle }) {
  const spread = [[0, 0, 0], [0, 0, 0], [0, 0, 0]];
  for (let i = 0; i < frame.residues; i += 1) {
    const at = caOf(frame, i);
    if (Number.isNaN(frame.points[at])) continue;
    const off = middle.map((value, k) => frame.points[at + k] - value);
    for (let a = 0; a < 3; a += 1) for (let b = 0; b < 3; b += 1) spread[a][b] += off[a] * off[b];
  }
  const first = longest(spread, [1, 0.3, 0.2]);
  const power = dot(first, spread.map((row) => dot(row, first)));
  const rest = spread.map((row, a) => row.map((value, b) => value - power * first[a] * first[b]));
  let second = longest(rest, [0.2, 1, 0.4]);
  const along = dot(first, second);
  second = unit(second.map((value, k) => value - along * first[k]));
  return [first, second, cross(first, second)];
}

function longest(matrix, start) {
  let axis = unit(start);
  for (let round = 0; round < 60; round += 1) axis = unit(matrix.map((row) => dot(row, axis)), axis);
  return axis;
}

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];

function unit(vector, otherwise = [1, 0, 0]) {
  const length = Math.hypot(...vector);
  return length > 1e-9 ? vector.map((value) => value / length) : otherwise;
}

// The rotation turned further, about the picture's vertical and horizontal axis, radian.
function turned(rotation, right, down) {
  const [a, b] = [Math.cos(right), Math.sin(right)];
  const [c, d] = [Math.cos(down), Math.sin(down)];
  const [x, y, z] = rotation;
  const about = [x.map((v, k) => a * v + b * z[k]), y, z.map((v, k) => a * v - b * x[k])];
  return [about[0], about[1].map((v, k) => c * v - d * about[2][k]), about[2].map((v, k) => d * about[1][k] + c * v)];
}

// view: { middle, radius, rotation, zoom }. chosen: a residue to mark, or null.
function draw(canvas, frame, colours, view, chosen = null) {
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth * scale, canvas.clientHeight * scale].map(Math.round);
  if (!width || !height) return;
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  const style = getComputedStyle(canvas);
  context.clearRect(0, 0, width, height);
  const size = (Math.min(width, height) / 2.25) * (view.zoom || 1);
  const place = projected(frame, view, size, width / 2, height / 2);
  const pieces = curve(frame, place);
  pieces.sort((one, other) => one.depth - other.depth);
  const thick = Math.max(2.2 * scale, (size / view.radius) * 1.3);
  const paper = rgbOf(style.getPropertyValue("--panel"));
  for (const piece of pieces) {
    const nearness = Math.min(1, Math.max(0, 0.5 + piece.depth / (2 * size)));
    const fade = 0.62 * (1 - nearness);
    const colour = colours[piece.residue].map((value, k) => Math.round(value + (paper[k] - value) * fade));
    const line = thick * piece.width * (0.8 + 0.4 * nearness);
    stroke(context, piece, css(paper), line * 1.6, "butt"); // a rim, lest crossing parts run together
    stroke(context, piece, css(colour), line, "round");
  }
  if (chosen !== null && place[chosen]) {
    const [x, y] = place[chosen];
    context.beginPath();
    context.arc(x, y, thick * 1.7, 0, 2 * Math.PI);
    context.lineWidth = 2 * scale;
    context.strokeStyle = style.color;
    context.stroke();
  }
}

function stroke(context, piece, colour, width, cap) {
  context.beginPath();
  context.lineCap = cap;
  context.moveTo(piece.from[0], piece.from[1]);
  context.lineTo(piece.to[0], piece.to[1]);
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.stroke();
}

// Of each residue x, y and depth in pixels; null where it has no CA.
function projected(frame, view, size, x, y) {
  return Array.from({ length: frame.residues }, (_, i) => {
    const at = caOf(frame, i);
    if (Number.isNaN(frame.points[at])) return null;
    const off = view.middle.map((value, k) => (frame.points[at + k] - value) / view.radius);
    const [right, up, near] = view.rotation.map((row) => dot(row, off) * size);
    return [x + right, y - up, near];
  });
}

// Straight pieces of a Catmull-Rom curve through the residues of each chain.
function curve(frame, place) {
  const pieces = [];
  for (let i = 0; i + 1 < frame.residues; i += 1) {
    if (!place[i] || !place[i + 1] || frame.chains[i] !== frame.chains[i + 1]) continue;
    const before = (frame.chains[i - 1] === frame.chains[i] && place[i - 1]) || place[i];
    const after = (frame.chains[i + 2] === frame.chains[i] && place[i + 2]) || place[i + 1];
    let from = place[i];
    for (let step = 1; step <= PIECES; step += 1) {
      const to = between(before, place[i], place[i + 1], after, step / PIECES);
      const residue = step * 2 <= PIECES ? i : i + 1;
      const width = frame.states ? WIDTHS[frame.states[residue]] : 1;
      pieces.push({ from, to, residue, width, depth: (from[2] + to[2]) / 2 });
      from = to;
    }
  }
  return pieces;
}

function between(p0, p1, p2, p3, t) {
  return [0, 1, 2].map((k) => {
    const bend = 2 * p0[k] - 5 * p1[k] + 4 * p2[k] - p3[k];
    const twist = 3 * p1[k] - p0[k] - 3 * p2[k] + p3[k];
    return p1[k] + 0.5 * t * (p2[k] - p0[k] + t * (bend + t * twist));
  });
}

function rgbOf(text) {
  const hex = /^#?([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})$/i.exec(text.trim());
  return hex ? hex.slice(1).map((pair) => parseInt(pair, 16)) : [255, 255, 255];
}

// The whole picture, which can be turned by dragging.
class DrawnPicture {
  constructor(box) {
    this.canvas = document.createElement("canvas");
    box.replaceChildren(this.canvas);
    this.turn = null;
    this.canvas.addEventListener("pointerdown", (event) => this.grab(event));
    new ResizeObserver(() => this.redraw()).observe(this.canvas);
  }

  // home: the frame that the view is fitted to, the same for a whole path, lest it jump.
  show(frame, colours, home) {
    if (this.home !== home) {
      const fitted = extent(home);
      this.view = { ...fitted, rotation: facing(home, fitted), zoom: 1 };
      this.home = home;
    }
    // Noise may be wider than what becomes of it.
    const own = extent(frame);
    Object.assign(this.view, { middle: own.middle, zoom: this.view.radius / Math.max(this.view.radius, own.radius) });
    [this.frame, this.colours] = [frame, colours];
    this.redraw();
  }

  mark(residue) {
    this.chosen = residue;
    this.redraw();
  }

  rotate(right, down) {
    this.view.rotation = turned(this.view.rotation, right, down);
    this.redraw();
  }

  redraw() {
    if (this.frame) draw(this.canvas, this.frame, this.colours, this.view, this.chosen ?? null);
  }

  shown() {
    const points = [];
    for (let i = 0; i < this.frame.residues; i += 1) {
      const at = caOf(this.frame, i);
      points.push([...this.frame.points.subarray(at, at + 3)]);
    }
    return points;
  }

  grab(event) {
    let [x, y] = [event.clientX, event.clientY];
    const move = (next) => {
      this.rotate((next.clientX - x) / 120, (next.clientY - y) / 120);
      [x, y] = [next.clientX, next.clientY];
    };
    this.canvas.setPointerCapture(event.pointerId);
    this.canvas.addEventListener("pointermove", move);
    this.canvas.addEventListener("pointerup", () => this.canvas.removeEventListener("pointermove", move), { once: true });
  }
}
