// What colours say: the place along the chain, the model's certainty, secondary structure, or the chain.

const RAMPS = {
  chain: [[58, 91, 190], [38, 148, 158], [104, 170, 74], [232, 172, 52], [208, 78, 60]],
  certainty: [[214, 92, 46], [238, 190, 72], [104, 186, 214], [36, 84, 176]],
};
const STATES = { H: [188, 74, 104], E: [226, 164, 58], L: [140, 148, 158] };
const STATE_NAMES = { H: "helix", E: "strand", L: "neither" };
const CHAINS = [[47, 111, 115], [194, 106, 45], [106, 90, 168], [163, 63, 95], [91, 125, 44], [122, 127, 135]];
const PLAIN = [140, 148, 158];

// value: 0 to 1.
function ramp(stops, value) {
  const place = Math.min(Math.max(value, 0), 1) * (stops.length - 1);
  const first = Math.min(Math.floor(place), stops.length - 2);
  return stops[first].map((low, i) => Math.round(low + (stops[first + 1][i] - low) * (place - first)));
}

const SCHEMES = {
  chain: { label: "along the chain", of: (frame, i) => ramp(RAMPS.chain, i / Math.max(1, frame.residues - 1)) },
  certainty: {
    label: "certainty",
    fits: (frame) => frame.certainty !== null,
    of: (frame, i) => (frame.certainty ? ramp(RAMPS.certainty, frame.certainty[i] / 100) : PLAIN),
  },
  states: {
    label: "secondary structure",
    fits: (frame) => frame.states !== null,
    of: (frame, i) => (frame.states ? STATES[frame.states[i]] : PLAIN),
  },
  chains: {
    label: "chains",
    fits: (frame) => frame.chains[frame.residues - 1] > 0,
    of: (frame, i) => CHAINS[frame.chains[i] % CHAINS.length],
  },
};

// A colour for each residue, as [red, green, blue].
function coloursOf(frame, scheme) {
  return Array.from({ length: frame.residues }, (_, i) => SCHEMES[scheme].of(frame, i));
}

function css([red, green, blue]) {
  return `rgb(${red},${green},${blue})`;
}

// Fills an element with what the scheme's colours mean.
function legend(box, scheme) {
  box.replaceChildren();
  const words = { chain: ["N", "C"], certainty: ["0", "100"] }[scheme];
  if (words) {
    const strip = document.createElement("canvas");
    strip.width = 128;
    strip.height = 1;
    const context = strip.getContext("2d");
    for (let x = 0; x < strip.width; x += 1) {
      context.fillStyle = css(ramp(RAMPS[scheme], x / (strip.width - 1)));
      context.fillRect(x, 0, 1, 1);
    }
    box.append(words[0], strip, words[1]);
  }
  if (scheme === "states") {
    for (const [state, name] of Object.entries(STATE_NAMES)) {
      const word = document.createElement("span");
      word.style.color = css(STATES[state]);
      word.textContent = name;
      box.append(word);
    }
  }
}
