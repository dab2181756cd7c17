"""Plots: what is drawn is what was given, and all of it is text to a browser."""

from xml.etree import ElementTree

import numpy as np
import pytest

from app.report import plots


def shapes(plot, kind):
    return [one for one in ElementTree.fromstring(plot.svg).iter() if one.get("class") == kind]


def test_a_histogram_counts_everything():
    values = np.random.default_rng(0).normal(size=500)
    bars = shapes(plots.histogram("x", values, "x"), "bar")
    counts = [int(bar[0].text.rpartition(": ")[2]) for bar in bars]
    assert sum(counts) == 500
    heights = np.array([float(bar.get("height")) for bar in bars])
    np.testing.assert_allclose(heights / heights.max(), np.array(counts) / max(counts), atol=0.01)


def test_few_whole_numbers_have_a_bar_each():
    told = [bar[0].text for bar in shapes(plots.histogram("x", [3, 3, 5], "x"), "bar")]
    assert told == ["3: 2", "5: 1"]


@pytest.mark.parametrize("values", [[0.0], [1e-4, 1e-4], [-2.5, -2.5], [1e9, 1e9]])
def test_equal_values_are_drawn(values):
    assert len(shapes(plots.histogram("x", values, "x"), "bar")) == 1
    assert len(shapes(plots.lines("x", {"a": list(enumerate(values))}, "step"), "line line-0")) == 1


def test_marks_outside_are_left_out():
    assert len(shapes(plots.histogram("x", [1.0, 2.0], "x", marks=[1.5, 9.0]), "mark")) == 1


def test_a_scatter_is_thinned_and_says_so():
    points = [(float(x), 0.0) for x in range(5000)]
    names = [f"d{x}" for x in range(5000)]
    plot = plots.scatter("x", points, ("a", "b"), names)
    dots = shapes(plot, "dot")
    assert len(dots) == plots.POINTS and "2,000 of 5,000" in plot.note
    assert (dots[0].get("data-design"), dots[-1].get("data-design")) == ("d0", "d4999")


def test_density_covers_what_has_points():
    plot = plots.density("x", np.array([5.0]), np.array([5.0]), ("a", "b"), ((0, 10), (0, 10)), 10)
    (square,) = shapes(plot, "square")
    assert square.get("d").count("M") == 1 and square.get("fill-opacity") == "1.00"


def test_lines_leave_out_what_is_not_finite():
    plot = plots.lines("x", {"a": [(0, 1.0), (1, float("nan")), (2, 3.0)], "b": [(0, float("inf"))]}, "step")
    (line,) = shapes(plot, "line line-0")
    assert line.get("d").count("L") == 1 and plot.legend == ()
    assert "finite" in plots.lines("x", {"b": [(0, float("inf"))]}, "step").note


def test_logarithms_only_of_what_has_them():
    ticks = [tick.text for tick in shapes(plots.lines("x", {"a": [(0, 1.0), (1, 1000.0)]}, "step", log=True), "tick")]
    assert {"1", "10", "100", "1,000"} <= set(ticks)
    assert shapes(plots.lines("x", {"a": [(0, 0.0), (1, 1000.0)]}, "step", log=True), "line line-0")


def test_names_are_escaped():
    hostile = "<script>&\"'"
    for plot in (
        plots.histogram(hostile, [1, 2], hostile),
        plots.bars(hostile, {hostile: 0.5}, hostile, beside=[0.2]),
        plots.scatter(hostile, [(0, 1)], (hostile, hostile), [hostile]),
        plots.lines(hostile, {hostile: [(0, 1)]}, hostile),
    ):
        assert "<script" not in plot.svg
        ElementTree.fromstring(plot.svg)
