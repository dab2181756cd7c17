"""A report as one HTML file: the template filled, style and scripts inlined, and nothing that could ask a network.

What files say is escaped wherever it stands, and the page's Content-Security-Policy lets no script run but those whose
hashes it names, and no request leave.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from app.report.plots import Plot
from app.report.viewer import Viewer
from app.report.words import Rows

_ASSETS = files("app.report") / "assets"

SCRIPTS = ("data", "colours", "drawn", "solid", "picture", "sequence", "stage", "gallery", "page")
"""In the order in which they are put into one function; each uses those before it."""


@dataclass(frozen=True)
class Figure:
    """A number at the top of the page. tone: "good", "bad" or none."""

    label: str
    value: str
    note: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Table:
    title: str
    head: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass
class Page:
    """What a report says. explorer: the designs, as the scripts read them (docs/report.md); None: there are none."""

    title: str
    subtitle: str
    figures: list[Figure] = field(default_factory=list)
    explorer: dict[str, Any] | None = None
    plots: list[tuple[str, list[Plot]]] = field(default_factory=list)  # by the heading above them
    tables: list[Table] = field(default_factory=list)
    provenance: list[tuple[str, Rows]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def render(page: Page, viewer: Viewer | None) -> str:
    """The page as HTML. viewer: what draws in three dimensions; None: canvases do."""
    style = _asset("style.css")
    scripts = []
    if page.explorer is not None:
        scripts = [viewer.code] if viewer else []
        scripts.append('"use strict";\n(() => {\n' + "\n".join(_asset(f"{name}.js") for name in SCRIPTS) + "})();\n")
    hashes = " ".join(_source(script) for script in scripts) or "'none'"
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src {_source(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return _template().render(
        page=page,
        policy=policy,
        style=Markup(style),
        scripts=[Markup(script) for script in scripts],
        data=None if page.explorer is None else Markup(as_script(page.explorer)),
        viewer=viewer,
    )


def as_script(data: Any) -> str:
    """JSON that a <script> element may hold: no text in it can end the element or begin a comment.

    Raises ValueError for a number that is not finite, which JSON has no word for.
    """
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _template():
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["svg"] = Markup  # plots escape what they show (app.report.plots)
    return environment.from_string(_asset("page.html"))


@cache
def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")
