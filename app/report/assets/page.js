// Puts the parts together.

const stage = new Stage();
const gallery = new Gallery(data.designs, data.columns, open);

function open(index) {
  stage.open(data.designs[index]);
  gallery.setCurrent(index);
  history.replaceState(null, "", `#${encodeURIComponent(data.designs[index].id)}`);
}

function openNamed(id) {
  const index = data.designs.findIndex((design) => design.id === id);
  if (index >= 0) open(index);
  return index >= 0;
}

// Dots of a plot stand for designs.
document.addEventListener("click", ({ target }) => {
  const id = target.closest?.("[data-design]")?.getAttribute("data-design");
  if (id && openNamed(id)) element("designs").scrollIntoView({ behavior: "smooth" });
});

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  gallery.redraw();
  stage.picture?.redraw();
});

addEventListener("beforeprint", () => gallery.drawFirst());

// For those who script a page: docs/report.md.
window.trunkline = { open: openNamed, shown: () => stage.picture?.shown() ?? [] };

if (data.designs.length) {
  let named = "";
  try {
    named = decodeURIComponent(location.hash.slice(1));
  } catch {
    // An address that somebody made up: the first design is opened.
  }
  const first = data.designs.findIndex((design) => design.structure);
  if (!openNamed(named)) open(Math.max(0, first));
}
