// A structure in three dimensions, by 3Dmol.js where the page carries it.

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const NAMES = [" N  ", " CA ", " C  ", " O  "];
const SHEETS = { H: "h", E: "s", L: "c" };
const THREE = {
  A: "ALA", R: "ARG", N: "ASN", D: "ASP", C: "CYS", Q: "GLN", E: "GLU", G: "GLY", H: "HIS", I: "ILE", L: "LEU",
  K: "LYS", M: "MET", F: "PHE", P: "PRO", S: "SER", T: "THR", W: "TRP", Y: "TYR", V: "VAL",
};

// A frame as the lines of a PDB file. Residues are numbered through, chains named A, B, ...; both are read back by
// nobody but 3Dmol.js. Where there are CA atoms alone, neighbours are bonded however far they are apart, as in noise.
function asPdb(frame) {
  const lines = [];
  const bonds = [];
  const names = frame.atoms === 1 ? [NAMES[CA]] : NAMES;
  for (let i = 0; i < frame.residues; i += 1) {
    names.forEach((name, atom) => {
      const at = (i * frame.atoms + atom) * 3;
      if (Number.isNaN(frame.points[at])) return;
      const chain = LETTERS[frame.chains[i] % LETTERS.length];
      const place = [0, 1, 2].map((k) => frame.points[at + k].toFixed(3).padStart(8)).join("");
      const serial = String((lines.length + 1) % 100000).padStart(5);
      const number = String((i + 1) % 10000).padStart(4);
      const residue = THREE[frame.sequence[i]] || "UNK";
      lines.push(`ATOM  ${serial} ${name} ${residue} ${chain}${number}    ${place}  1.00  0.00           ${name[1]}`);
      const [before, last] = [lines.at(-2), lines.length];
      const follows = before && frame.chains[i - 1] === frame.chains[i] && Number(before.slice(22, 26)) === i % 10000;
      if (names.length === 1 && follows) bonds.push(`CONECT${String(last - 1).padStart(5)}${serial}`);
    });
  }
  return [...lines, ...bonds].join("\n");
}

class SolidPicture {
  constructor(box) {
    box.replaceChildren();
    this.viewer = window.$3Dmol.createViewer(box, { backgroundAlpha: 0, antialias: true, disableFog: false });
    if (!this.viewer) throw new Error("no WebGL");
    new ResizeObserver(() => this.viewer.resize()).observe(box);
  }

  show(frame, colours, home) {
    this.viewer.removeAllModels();
    this.viewer.removeAllShapes();
    this.model = this.viewer.addModel(asPdb(frame), "pdb");
    const atoms = this.model.selectedAtoms({});
    if (frame.states) {
      for (const atom of atoms) {
        const i = atom.resi - 1;
        const at = (step) => (frame.chains[i + step] === frame.chains[i] ? frame.states[i + step] : null);
        atom.ss = SHEETS[frame.states[i]];
        atom.ssbegin = at(-1) !== frame.states[i];
        atom.ssend = at(1) !== frame.states[i];
      }
    }
    this.colours = colours;
    this.frame = frame;
    this.style();
    if (this.home !== home) {
      this.home = home;
      this.viewer.setView([0, 0, 0, 0, 0, 0, 0, 1]);
      this.viewer.zoomTo();
      this.viewer.zoom(1.25);
    }
    this.viewer.render();
  }

  style() {
    const colorfunc = (atom) => css(this.colours[atom.resi - 1] || PLAIN);
    const whole = this.frame.atoms > 1;
    const shape = whole ? { cartoon: { colorfunc, arrows: true, thickness: 0.35 } } : { stick: { colorfunc, radius: 0.5 } };
    this.viewer.setStyle({}, shape);
  }

  mark(residue) {
    this.viewer.removeAllShapes();
    if (residue !== null && this.frame) {
      const at = caOf(this.frame, residue);
      const [x, y, z] = this.frame.points.subarray(at, at + 3);
      const color = css(this.colours[residue]);
      if (!Number.isNaN(x)) this.viewer.addSphere({ center: { x, y, z }, radius: 1.7, color, opacity: 0.75 });
    }
    this.viewer.render();
  }

  rotate(right, down) {
    const degrees = 180 / Math.PI;
    this.viewer.rotate(right * degrees, "vy");
    this.viewer.rotate(down * degrees, "vx");
  }

  redraw() {
    this.viewer.render();
  }

  shown() {
    return this.model.selectedAtoms({ atom: "CA" }).map((atom) => [atom.x, atom.y, atom.z]);
  }
}
