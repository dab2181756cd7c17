// One design, opened: its picture, its way from noise, its sequence and what was measured of it.

const element = (id) => document.getElementById(id);
const PLAY = 110; // milliseconds a frame
const MODELS = { path: "where the sampler was", clean: "what the model foresaw" };

class Stage {
  constructor() {
    this.picture = null;
    this.timer = null;
    this.sequence = new SequenceView(element("sequence"), (residue) => this.choose(residue));
    turnByKeys(element("picture"), () => this.picture || {});
    element("colour").addEventListener("change", () => this.draw());
    element("slider").addEventListener("input", () => {
      this.stop();
      this.draw();
    });
    element("path").addEventListener("change", () => this.changePath());
    element("play").addEventListener("click", () => (this.timer ? this.stop() : this.play()));
  }

  open(design) {
    this.stop();
    this.design = design;
    element("design-title").textContent = design.id;
    const about = [design.task.replaceAll("_", " "), `${design.length} residues`, design.seed && `seed ${design.seed}`];
    element("design-about").textContent = about.filter(Boolean).join(" · ");
    const told = [...design.flags, design.error || (design.status === "done" ? "" : design.status)].filter(Boolean);
    element("design-flags").replaceChildren(...told.map((text) => withText("li", text)));
    this.measures();
    const structure = design.structure;
    this.final = structure ? finalFrame(design) : null;
    this.paths = structure ? structure.paths.map((path) => ({ ...path, frames: null })) : [];
    element("way").hidden = this.paths.length === 0;
    const names = this.paths.map(({ name }) => [name, MODELS[name] || name]);
    fill(element("path"), names, element("path").value);
    if (structure) this.choices();
    if (this.paths.length) this.changePath(1);
    else this.draw();
  }

  // Which colours make sense of this design.
  choices() {
    const fitting = Object.entries(SCHEMES).filter(([, scheme]) => !scheme.fits || scheme.fits(this.final));
    fill(element("colour"), fitting.map(([name, { label }]) => [name, label]), element("colour").value);
  }

  measures() {
    const columns = data.columns.map((column, index) => [column.label, this.design.values[index]]);
    const shown = [...columns.filter(([, value]) => value !== null), ...this.design.details];
    element("measures").replaceChildren(
      ...shown.map(([label, value]) => {
        const row = document.createElement("div");
        const cell = withText("dd", inDigits(value));
        if (typeof value === "string" && value.startsWith("skipped")) cell.className = "absent";
        if (typeof value === "string" && value.length > 16) row.className = "long";
        row.append(withText("dt", label), cell);
        return row;
      }),
    );
  }

  get chosenPath() {
    const path = this.paths.find(({ name }) => name === element("path").value);
    if (path && !path.frames) path.frames = framesOf(this.design, path);
    return path;
  }

  // place: along the path, 0 to 1; null: as far along as before.
  changePath(place = null) {
    const slider = element("slider");
    const share = place ?? slider.value / Math.max(1, slider.max);
    slider.max = this.chosenPath.frames.length - 1;
    slider.value = Math.round(share * slider.max);
    this.draw();
  }

  // The frame that the slider is at; at the end of the way, the design itself.
  frame() {
    const path = this.chosenPath;
    const place = Number(element("slider").value);
    return path && place < path.frames.length - 1 ? path.frames[place] : this.final;
  }

  draw() {
    const box = element("picture");
    const frame = this.final && this.frame();
    element("legend").replaceChildren();
    if (!frame) {
      this.picture = null;
      const why = this.design.status === "done" ? "Its structure is not on this page." : "There is no structure.";
      box.replaceChildren(withText("p", why));
      this.sequence.show(this.design.sequence, null, []);
      return;
    }
    this.picture ||= makePicture(box);
    const scheme = element("colour").value;
    const colours = coloursOf(frame, scheme);
    this.picture.show(frame, colours, this.final);
    legend(element("legend"), scheme);
    const bars = frame.certainty ? coloursOf(frame, "certainty") : colours;
    this.sequence.show(frame.sequence, frame.certainty, bars);
    const path = this.chosenPath;
    if (path) {
      const model = path.chosen[Number(element("slider").value)];
      element("frame").textContent = `${model} of ${path.models - 1}`;
    }
  }

  choose(residue) {
    const frame = this.final && this.frame();
    const told = element("residue");
    told.textContent = "";
    if (frame && this.picture) this.picture.mark(residue);
    if (residue === null || !frame) return;
    const words = [`${nameOf(this.design, residue)} ${frame.sequence[residue]}`];
    if (frame.certainty) words.push(`certainty ${frame.certainty[residue]}`);
    if (frame.states) words.push(STATE_NAMES[frame.states[residue]]);
    told.textContent = words.join(" · ");
  }

  play() {
    const slider = element("slider");
    if (slider.value === slider.max) slider.value = 0;
    element("play").textContent = "❚❚";
    this.timer = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      this.draw();
      if (slider.value === slider.max) this.stop();
    }, PLAY);
  }

  stop() {
    clearInterval(this.timer);
    this.timer = null;
    element("play").textContent = "▶";
  }
}

function withText(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

// Options of a select, keeping the one that was chosen where it is still there.
function fill(select, options, chosen) {
  select.replaceChildren(
    ...options.map(([value, label]) => {
      const option = withText("option", label);
      option.value = value;
      return option;
    }),
  );
  if (options.some(([value]) => value === chosen)) select.value = chosen;
}

function inDigits(value) {
  if (typeof value !== "number") return value;
  return Number.isInteger(value) ? value.toLocaleString("en") : Number(value.toPrecision(4)).toString();
}
