// What the page carries, unpacked when it is asked for. A frame is a structure as it is drawn:
// { points, atoms, residues, sequence, certainty, states, chains }: angstrom, residue after residue, atom after atom.

const data = JSON.parse(document.getElementById("report-data").textContent);
const ABSENT = -32768;
const CA = 1; // of N, CA, C, O; where there is one atom a residue, it is CA

function bytes(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

function coordinates(packed) {
  const numbers = new DataView(bytes(packed.xyz).buffer);
  const points = new Float32Array(numbers.byteLength / 2);
  for (let i = 0; i < points.length; i += 1) {
    const number = numbers.getInt16(2 * i, true);
    points[i] = number === ABSENT ? NaN : number * packed.step;
  }
  return points;
}

// Of each residue, which chain it is in: 0, 1, ...
function chainsOf(structure) {
  return structure.chains.flatMap(([, length], index) => Array(length).fill(index));
}

function finalFrame(design) {
  const structure = design.structure;
  return {
    points: coordinates(structure),
    atoms: 4,
    residues: structure.residues,
    sequence: structure.sequence,
    certainty: structure.certainty ? bytes(structure.certainty) : null,
    states: structure.states,
    chains: chainsOf(structure),
  };
}

// The models of a trajectory, as frames.
function framesOf(design, path) {
  const { residues } = design.structure;
  const points = coordinates(path);
  const certainty = path.certainty ? bytes(path.certainty) : null;
  const size = residues * 3;
  const chains = chainsOf(design.structure);
  return path.chosen.map((model, index) => ({
    points: points.subarray(index * size, (index + 1) * size),
    atoms: 1,
    residues,
    sequence: path.sequences[index],
    certainty: certainty && certainty.subarray(index * residues, (index + 1) * residues),
    states: null,
    chains,
  }));
}

// Where a residue's CA is: its first coordinate's place in `points`.
function caOf(frame, residue) {
  return (residue * frame.atoms + (frame.atoms === 1 ? 0 : CA)) * 3;
}

// The residue as its file calls it: chain and number.
function nameOf(design, residue) {
  const { chains, numbers } = design.structure;
  let before = 0;
  for (const [name, length] of chains) {
    if (residue < before + length) return `${name} ${numbers ? numbers[residue] : residue - before + 1}`;
    before += length;
  }
  return String(residue + 1);
}
