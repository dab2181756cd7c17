"""report.html: what a folder holds, to look at."""

from pathlib import Path

from app.errors import UserError
from app.files.listed import refuse_unlisted
from app.report import viewer as viewers
from app.report.page import Page, render
from app.signals import heeding_ctrl_c
from app.structure.atomic import replacing

REPORT = "report.html"


@heeding_ctrl_c()
def write(folder: Path, viewer: Path | None = None) -> Path:
    """Write `folder/report.html` from what lies in the folder, and return its path.

    folder: of a run of infer.py, evaluated or not; any folder of structure files; or of a run of train.py. What else is
    missing or damaged there is left out, and the page says so. viewer: a copy of 3Dmol.js to inline; None: the one that
    `python -m app report install-viewer` installed, and without it structures are drawn on canvases.
    Raises UserError: nothing to report on, a manifest that is damaged, a viewer that is none, no room for the file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name the out=... of a run, or a folder of structures")
    refuse_unlisted(folder)
    notes = []
    try:
        inlined = viewers.find(viewer)
    except UserError as error:
        if viewer is not None:
            raise
        inlined = None  # nobody asked for it by name: designs are drawn all the same
        notes.append(f"drawn without the 3D viewer: {error}")
    page = _page_of(folder)
    page.notes += notes
    text = render(page, inlined)
    try:
        with replacing(folder / REPORT) as aside:
            aside.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{folder / REPORT}: cannot be written ({error.strerror}); make room there") from None
    return folder / REPORT


def _page_of(folder: Path) -> Page:
    from app.report import training_page

    if training_page.is_training(folder):
        return training_page.page_of(folder)
    from app.report import design_page  # biotite, slow to import

    return design_page.page_of(folder)
