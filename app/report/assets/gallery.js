// A card for each design, in the order and of the words that are asked for.

const PRINTED = 60; // as style.css has it

class Gallery {
  constructor(designs, columns, onOpen) {
    [this.designs, this.columns, this.onOpen] = [designs, columns, onOpen];
    this.keys = {
      order: { label: "order of the run", of: (index) => index },
      id: { label: "name", of: (index) => designs[index].id },
      length: { label: "length", of: (index) => designs[index].length },
      flags: { label: "flags", of: (index) => designs[index].flags.length + (designs[index].status !== "done") * 1000 },
    };
    columns.forEach((column, place) => {
      this.keys[`column-${place}`] = { label: column.label, of: (index) => designs[index].values[place] };
    });
    this.list = element("gallery");
    this.cards = designs.map((design, index) => this.card(design, index));
    this.watch = new IntersectionObserver((entries) => this.drawSeen(entries), { root: this.list, rootMargin: "300px" });
    this.cards.forEach((card) => this.watch.observe(card));
    fill(element("sort"), Object.entries(this.keys).map(([name, { label }]) => [name, label]));
    element("sort").addEventListener("change", () => this.arrange());
    element("filter").addEventListener("input", () => this.arrange());
    element("order").addEventListener("click", () => {
      const down = element("order").getAttribute("aria-pressed") !== "true";
      element("order").setAttribute("aria-pressed", down);
      element("order").textContent = down ? "↓" : "↑";
      this.arrange();
    });
    this.list.addEventListener("keydown", (event) => this.move(event));
    this.arrange();
  }

  card(design, index) {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "card";
    button.tabIndex = -1;
    button.dataset.id = design.id;
    button.classList.toggle("flagged", design.flags.length > 0 || design.status !== "done");
    button.append(document.createElement("canvas"), withText("b", design.id), withText("span", ""));
    button.addEventListener("click", () => this.onOpen(index));
    item.append(button);
    return item;
  }

  drawSeen(entries) {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      this.watch.unobserve(entry.target);
      this.thumbnail(this.cards.indexOf(entry.target));
    }
  }

  // As many as are printed, seen or not.
  drawFirst() {
    for (const index of this.shown.slice(0, PRINTED)) this.thumbnail(index);
  }

  thumbnail(index) {
    const design = this.designs[index];
    if (!design.structure) return;
    const frame = finalFrame(design);
    const fitted = extent(frame);
    const view = { ...fitted, rotation: facing(frame, fitted) };
    draw(this.cards[index].querySelector("canvas"), frame, coloursOf(frame, "chain"), view);
  }

  // Sorted and filtered: what has no value comes last, whichever the order.
  arrange() {
    const { of } = this.keys[element("sort").value];
    const down = element("order").getAttribute("aria-pressed") === "true" ? -1 : 1;
    const words = element("filter").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const kept = this.designs.map((_, index) => index).filter((index) => this.matches(index, words));
    const lacks = (value) => value === null || value === "" || String(value).startsWith("skipped");
    kept.sort((one, other) => {
      const [a, b] = [of(one), of(other)];
      if (lacks(a) || lacks(b)) return lacks(a) - lacks(b) || one - other;
      const texts = typeof a === "string" || typeof b === "string";
      return down * (texts ? String(a).localeCompare(String(b), "en", { numeric: true }) : a - b) || one - other;
    });
    this.shown = kept;
    this.list.replaceChildren(...kept.map((index) => this.cards[index]));
    for (const index of kept) this.cards[index].querySelector("span").textContent = this.told(index);
    const count = `${kept.length.toLocaleString("en")} of ${this.designs.length.toLocaleString("en")}`;
    element("count").textContent = count;
    this.focusable();
  }

  matches(index, words) {
    const { id, sequence, task, status, flags, error } = this.designs[index];
    const text = [id, sequence, task, status, error, ...flags].join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  }

  // Under the name: what is sorted by, or the length.
  told(index) {
    const name = element("sort").value;
    const design = this.designs[index];
    if (design.status !== "done") return design.status;
    if (!name.startsWith("column-")) return `${design.length} residues`;
    const value = this.keys[name].of(index);
    return value === null ? "–" : `${this.keys[name].label} ${inDigits(value)}`;
  }

  setCurrent(index) {
    this.cards.forEach((card, place) => card.firstChild.setAttribute("aria-current", place === index));
    this.current = index;
    this.focusable();
    const [card, list] = [this.cards[index], this.list];
    const over = card.offsetTop - list.offsetTop;
    if (over < list.scrollTop || over + card.offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = over;
  }

  // One card of all can be reached by Tab; arrow keys go on from there.
  focusable() {
    this.cards.forEach((card) => (card.firstChild.tabIndex = -1));
    const place = Math.max(0, this.shown.indexOf(this.current));
    if (this.shown.length) this.cards[this.shown[place]].firstChild.tabIndex = 0;
  }

  move(event) {
    const place = this.shown.findIndex((index) => this.cards[index].firstChild === document.activeElement);
    if (place < 0) return;
    const row = getComputedStyle(this.list).gridTemplateColumns.split(" ").length;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -row, ArrowDown: row, Home: -place, End: this.shown.length };
    if (!(event.key in steps)) return;
    event.preventDefault();
    const next = Math.min(this.shown.length - 1, Math.max(0, place + steps[event.key]));
    this.cards[this.shown[next]].firstChild.focus();
  }

  redraw() {
    this.cards.forEach((card) => this.watch.observe(card));
  }
}
