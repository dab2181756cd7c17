// The sequence in rows, under each letter a bar for how certain the model is of it.

const ROW = 30; // residues
const CELL = { width: 20, letter: 14, bar: 18, gap: 14 };
const SVG = "http://www.w3.org/2000/svg";

class SequenceView {
  // onChoose: told of the residue that the pointer or the keys are on, or null.
  constructor(box, onChoose) {
    [this.box, this.onChoose, this.chosen] = [box, onChoose, null];
    box.addEventListener("pointermove", (event) => this.choose(this.residueAt(event)));
    box.addEventListener("pointerleave", () => this.choose(null));
    box.addEventListener("blur", () => this.choose(null));
    box.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -ROW, ArrowDown: ROW }[event.key];
      if (!step || !this.length) return;
      event.preventDefault();
      const next = this.chosen === null ? 0 : this.chosen + step;
      this.choose(Math.min(this.length - 1, Math.max(0, next)));
    });
  }

  // certainty: [N] 0 to 100, or null. colours: of the bars.
  show(sequence, certainty, colours) {
    this.length = sequence.length;
    const rows = Math.ceil(sequence.length / ROW);
    this.height = CELL.letter + (certainty ? CELL.bar : 0) + CELL.gap;
    this.svg = svgElement("svg", { viewBox: `0 0 ${ROW * CELL.width} ${rows * this.height}`, "aria-hidden": "true" });
    for (let i = 0; i < sequence.length; i += 1) {
      const [x, y] = this.cornerOf(i);
      const letter = svgElement("text", { x: x + CELL.width / 2, y: y + CELL.letter - 3 });
      letter.textContent = sequence[i];
      this.svg.append(letter);
      const tall = certainty ? Math.max(1, (certainty[i] / 100) * CELL.bar) : 2;
      const bar = { x: x + 2, y: y + CELL.letter, width: CELL.width - 4, height: tall, fill: css(colours[i] || PLAIN) };
      this.svg.append(svgElement("rect", bar));
      if ((i + 1) % 10 === 0) {
        const place = svgElement("text", { class: "place", x: x + CELL.width / 2, y: y + this.height - 4 });
        place.textContent = i + 1;
        this.svg.append(place);
      }
    }
    this.frame = svgElement("rect", { class: "chosen", width: CELL.width, height: this.height - 10, rx: 3 });
    this.box.replaceChildren(this.svg);
    this.outline();
  }

  cornerOf(i) {
    return [(i % ROW) * CELL.width, Math.floor(i / ROW) * this.height];
  }

  residueAt(event) {
    if (!this.svg || !this.length) return null;
    const { left, top, width } = this.svg.getBoundingClientRect();
    const scale = (ROW * CELL.width) / width;
    const column = Math.floor(((event.clientX - left) * scale) / CELL.width);
    const i = Math.floor(((event.clientY - top) * scale) / this.height) * ROW + column;
    return column >= 0 && column < ROW && i >= 0 && i < this.length ? i : null;
  }

  choose(residue) {
    if (residue === this.chosen) return;
    this.chosen = residue;
    this.outline();
    this.onChoose(residue);
  }

  outline() {
    if (!this.frame) return;
    this.frame.remove();
    if (this.chosen === null || this.chosen >= this.length) return;
    const [x, y] = this.cornerOf(this.chosen);
    this.frame.setAttribute("x", x);
    this.frame.setAttribute("y", y);
    this.svg.append(this.frame);
  }
}

function svgElement(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
