"""Plots as inline SVG: histogram, bars, scatter, map of densities, lines. Colours are the page's style's to give."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np

WIDTH, HEIGHT = 320, 200  # units of the picture, which is as wide as its place on the page
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 36
BINS = 24
CLASSES = 6  # shades of a map of densities
POINTS = 2000  # most of a scatter, and of a line


@dataclass(frozen=True)
class Plot:
    """title: what is drawn. svg: the picture. note: a sentence below it. legend: names of the lines, in order."""

    title: str
    svg: str
    note: str = ""
    legend: tuple[str, ...] = ()


def histogram(title: str, values: Sequence[float], label: str, note: str = "", marks: Sequence[float] = ()) -> Plot:
    """How often values occur. marks: values to draw a line at, such as an ideal one."""
    values = np.asarray(values, dtype=float)
    whole = bool((values == values.round()).all())
    low, high = float(values.min()), float(values.max())
    if whole and high - low < BINS:
        edges = np.arange(low, high + 2) - 0.5
    else:
        edges = np.histogram_bin_edges(values, BINS, (low, high) if high > low else (low - 0.5, low + 0.5))
    counts, edges = np.histogram(values, edges)
    inside = [mark for mark in marks if edges[0] <= mark <= edges[-1]]
    axes = _Axes(title, (edges[0], edges[-1]), (0, counts.max()), label, "", whole_y=True)
    for count, first, last in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if count:
            one = whole and last - first == 1
            what = _round((first + last) / 2) if one else f"{_round(first)} to {_round(last)}"
            axes.box(first, last, count, f"{what}: {count:,}")
    for mark in inside:
        axes.vertical(mark)
    return Plot(title, axes.text(), note)


def bars(title: str, values: Mapping[str, float], label: str, note: str = "", beside: Sequence[float] = ()) -> Plot:
    """A bar a name, as shares of one. beside: of each name a value to compare with, drawn as a dash."""
    names = list(values)
    top = max([*values.values(), *beside, 1e-9])
    axes = _Axes(title, (-0.5, len(names) - 0.5), (0, top), "", label, names=names)
    for place, name in enumerate(names):
        axes.box(place - 0.4, place + 0.4, values[name], f"{name}: {_round(values[name])}")
    for place, value in enumerate(beside):
        axes.level(place - 0.46, place + 0.46, value)
    return Plot(title, axes.text(), note)


def scatter(
    title: str,
    points: Sequence[tuple[float, float]],
    labels: tuple[str, str],
    names: Sequence[str] = (),
    note: str = "",
    limits: tuple[tuple[float, float], tuple[float, float]] | None = None,
    curve: Sequence[tuple[float, float]] = (),
) -> Plot:
    """A dot a point, `POINTS` at most. names: of the designs that the points stand for. curve: a line beside them."""
    if len(points) > POINTS:
        chosen = np.linspace(0, len(points) - 1, POINTS).astype(int).tolist()
        note = f"{note} {POINTS:,} of {len(points):,} designs.".strip()
        points, names = [points[i] for i in chosen], [names[i] for i in chosen] if names else ()
    xs, ys = zip(*points, *curve, strict=True)
    x_limits, y_limits = limits or (_roomy(xs), _roomy(ys))
    axes = _Axes(title, x_limits, y_limits, *labels)
    if curve:
        axes.line(curve, "mark")
    for place, (x, y) in enumerate(points):
        axes.dot(x, y, names[place] if names else "")
    return Plot(title, axes.text(), note)


def density(
    title: str,
    xs: np.ndarray,
    ys: np.ndarray,
    labels: tuple[str, str],
    limits: tuple[tuple[float, float], tuple[float, float]],
    bins: int,
    note: str = "",
    ticks: Sequence[float] | None = None,
    regions: Sequence[tuple[float, float, float, float]] = (),
) -> Plot:
    """Squares, the darker the more points lie in them. regions: x from, to, y from, to: drawn below them."""
    counts, x_edges, y_edges = np.histogram2d(xs, ys, bins, limits)
    axes = _Axes(title, *limits, *labels, ticks=ticks)
    axes.squares(regions, "region")
    shade = np.ceil(CLASSES * np.sqrt(counts / max(counts.max(), 1))).astype(int)  # sqrt: the rare is to be seen
    for one in range(1, CLASSES + 1):
        corners = [(x_edges[i], x_edges[i + 1], y_edges[j], y_edges[j + 1]) for i, j in np.argwhere(shade == one)]
        axes.squares(corners, "square", one / CLASSES)
    return Plot(title, axes.text(), note)


def lines(
    title: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    label: str,
    log: bool = False,
    from_zero: bool = False,
) -> Plot:
    """Lines over the same axis, each thinned to `POINTS`; what is not finite is left out."""
    thin = {name: _finite(points) for name, points in series.items()}
    thin = {name: points[:: math.ceil(len(points) / POINTS)] for name, points in thin.items() if points}
    every = [point for points in thin.values() for point in points]
    if not every:
        return Plot(title, _Axes(title, (0, 1), (0, 1), label, "").text(), "no number is finite")
    log = log and min(y for _, y in every) > 0
    if log:
        thin = {name: [(x, math.log10(y)) for x, y in points] for name, points in thin.items()}
        every = [point for points in thin.values() for point in points]
    xs, ys = zip(*every, strict=True)
    limits = (0.0, 1.05 * max(ys) or 1.0) if from_zero else _roomy(ys)
    axes = _Axes(title, (min(xs), max(xs)), limits, label, "", log_y=log)
    for place, points in enumerate(thin.values()):
        axes.line(points, f"line line-{place % 6}")
    return Plot(title, axes.text(), legend=tuple(thin) if len(thin) > 1 else ())


class _Axes:
    """A frame with ticks that shapes are drawn into, in the units of its axes."""

    def __init__(
        self,
        title: str,
        x_limits: tuple[float, float],
        y_limits: tuple[float, float],
        x_label: str,
        y_label: str,
        *,
        names: Sequence[str] = (),  # of the places 0, 1, ... on the horizontal axis
        ticks: Sequence[float] | None = None,  # of both axes
        whole_y: bool = False,  # counts, which have no halves
        log_y: bool = False,  # heights are decimal logarithms
    ):
        self.x_limits, self.y_limits = _apart(x_limits), _apart(y_limits)
        self.svg = ElementTree.Element("svg", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img")
        ElementTree.SubElement(self.svg, "title").text = title
        for value in ticks or _ticks(*self.y_limits, whole_y or log_y):
            y = self.y(value)
            self._add("line", "rule", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y)
            self._say(_round(10**value) if log_y else _round(value), _LEFT - 6, y + 3.5, "end")
        marks = dict(enumerate(names)) if names else {v: _round(v) for v in ticks or _ticks(*self.x_limits)}
        for value, text in marks.items():
            self._say(text, self.x(value), HEIGHT - _BOTTOM + 14, "middle")
        self._add("line", "axis", x1=_LEFT, x2=WIDTH - _RIGHT, y1=HEIGHT - _BOTTOM, y2=HEIGHT - _BOTTOM)
        self._say(x_label, (_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 5, "middle", "label")
        if y_label:
            turned = f"translate(10 {(HEIGHT - _BOTTOM + _TOP) / 2}) rotate(-90)"
            self._say(y_label, 0, 0, "middle", "label").set("transform", turned)

    def x(self, value: float) -> float:
        low, high = self.x_limits
        return _LEFT + (value - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_limits
        return HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    def box(self, first: float, last: float, height: float, told: str) -> None:
        x, top = self.x(first) + 0.5, self.y(height)
        size = {"width": max(0.5, self.x(last) - x - 0.5), "height": max(0.0, self.y(self.y_limits[0]) - top)}
        ElementTree.SubElement(self._add("rect", "bar", x=x, y=top, **size), "title").text = told

    def dot(self, x: float, y: float, name: str) -> None:
        dot = self._add("circle", "dot", cx=self.x(x), cy=self.y(y), r=2.6)
        if name:
            dot.set("data-design", name)
            ElementTree.SubElement(dot, "title").text = f"{name}: {_round(x)}, {_round(y)}"

    def line(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        path = "M" + "L".join(f"{self.x(x):.1f} {self.y(y):.1f}" for x, y in points)
        self._add("path", kind, d=path + "h0" * (len(points) == 1))

    def squares(self, corners: Sequence[tuple[float, float, float, float]], kind: str, shade: float = 1.0) -> None:
        if corners:
            path = "".join(
                f"M{self.x(x0):.1f} {self.y(y0):.1f}H{self.x(x1):.1f}V{self.y(y1):.1f}H{self.x(x0):.1f}z"
                for x0, x1, y0, y1 in corners
            )
            self._add("path", kind, d=path).set("fill-opacity", f"{shade:.2f}")

    def vertical(self, x: float) -> None:
        self._add("line", "mark", x1=self.x(x), x2=self.x(x), y1=_TOP, y2=HEIGHT - _BOTTOM)

    def level(self, first: float, last: float, y: float) -> None:
        self._add("line", "mark", x1=self.x(first), x2=self.x(last), y1=self.y(y), y2=self.y(y))

    def text(self) -> str:
        return ElementTree.tostring(self.svg, encoding="unicode")

    def _add(self, tag: str, kind: str, **numbers: float | str) -> ElementTree.Element:
        shown = {name: value if isinstance(value, str) else f"{value:.1f}" for name, value in numbers.items()}
        return ElementTree.SubElement(self.svg, tag, {"class": kind, **shown})

    def _say(self, text: str, x: float, y: float, anchor: str, kind: str = "tick") -> ElementTree.Element:
        element = self._add("text", kind, x=x, y=y)
        element.set("text-anchor", anchor)
        element.text = text
        return element


def _ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Some four round numbers between the two."""
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    step = max(1.0, round(step)) if whole else step
    return [round(n * step, 12) for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _round(value: float) -> str:
    """As a person would write it."""
    if value and (abs(value) >= 1e6 or abs(value) < 1e-3):
        return f"{value:.2g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _roomy(values: Sequence[float]) -> tuple[float, float]:
    """Limits with some room around the values; from 0 where they are not far from it."""
    low, high = min(values), max(values)
    room = 0.05 * (high - low)
    return (0.0 if 0 <= low <= 0.4 * high else low - room), high + room


def _apart(limits: tuple[float, float]) -> tuple[float, float]:
    low, high = map(float, limits)
    room = 0.5 * abs(low) or 0.5
    return (low, high) if high > low else (low - room, low + room)


def _finite(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
