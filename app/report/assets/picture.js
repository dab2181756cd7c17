// The one large picture: solid where it can be, else drawn.

const TURN = 0.15; // radian, for an arrow key

function makePicture(box) {
  if (window.$3Dmol) {
    try {
      return new SolidPicture(box);
    } catch {
      // No WebGL here: it is drawn.
    }
  }
  return new DrawnPicture(box);
}

function turnByKeys(box, picture) {
  const turns = { ArrowLeft: [-TURN, 0], ArrowRight: [TURN, 0], ArrowUp: [0, -TURN], ArrowDown: [0, TURN] };
  box.addEventListener("keydown", (event) => {
    if (!turns[event.key] || !picture().home) return;
    event.preventDefault();
    picture().rotate(...turns[event.key]);
  });
}
