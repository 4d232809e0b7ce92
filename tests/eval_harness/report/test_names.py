"""Names in charts: none hits another, a point or an edge, whoever scores higher."""

from dataclasses import replace
from datetime import date
from itertools import combinations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from eval_harness.report import charts, svg, timeline
from eval_harness.report.chart_data import CostPoint, CostPoints
from eval_harness.report.panels import marks_of
from eval_harness.report.timeline import Sized, published_sizes
from eval_harness.tables.paper import load_paper

PAPER = [
    CostPoint("ELMo (paper)", 68.7, 180, is_paper=True),
    CostPoint("BERT-base (paper)", 79.5, 110, is_paper=True),
    CostPoint("DistilBERT (paper)", 77.0, 66, is_paper=True),
]
SWAPPED = [replace(PAPER[2], score=79.5), replace(PAPER[1], score=77.0)]
EQUAL = [replace(point, score=77.0, cost=66) for point in PAPER[1:]]


def ours(count):
    return [CostPoint(f"model-{n}", 60 + 20 * (n * 7 % 10) / 10, 20 + 95 * n / count)
            for n in range(count)]  # fmt: skip


def boxes(axes, texts):
    """Return where the texts stand, without the lines to their points."""
    renderer = FigureCanvasAgg(axes.get_figure()).get_renderer()
    return [Text.get_window_extent(text, renderer) for text in texts]


def require_room(figure, axes):
    """Fail if a name hits another, or leaves the figure."""
    figure.draw_without_rendering()
    found = boxes(axes, axes.texts)
    for one, other in combinations(found, 2):
        assert not one.overlaps(other)
    for box in found:
        assert box.x0 >= axes.get_window_extent().x0
        assert box.x1 <= figure.bbox.x1
        assert box.y0 >= axes.get_window_extent().y0
        assert box.y1 <= figure.bbox.y1


@pytest.mark.parametrize("published", [PAPER, SWAPPED, EQUAL])
@pytest.mark.parametrize("count", [1, 3, 12, 30])
def test_names_have_room_or_are_a_legend(published, count):
    """Prevents names above one another where a student beats its teacher, or among many models."""
    points = [*published, *ours(count)]
    marks = marks_of([point.label for point in ours(count)])
    with svg.chart_style():
        for in_legend in (False, True):
            panels = [("millions of parameters", points)]
            figure, has_names = charts._cost_figure(panels, marks, in_legend=in_legend)
            (axes,) = figure.axes
            names = {point.label.removesuffix(" (paper)") for point in published}
            if in_legend:
                (legend,) = figure.legends
                shown = {text.get_text() for text in legend.get_texts()}
                assert {point.label for point in published} < shown
                assert has_names
                assert not axes.texts
            elif has_names:
                assert {text.get_text() for text in axes.texts} == names
                require_room(figure, axes)
            else:
                assert count > 3
    chart = charts.score_against_cost(CostPoints(("rte",), points), marks)
    assert all(point.label.split()[0] in chart.svg.partition("</desc>")[2] for point in published)


def test_a_name_stands_beside_its_own_point():
    """Prevents the student's name at its teacher's point where the student scores higher."""
    with svg.chart_style():
        figure, _ = charts._cost_figure([("x", [*SWAPPED, *ours(1)])], marks_of(["model-0"]),
                                        in_legend=False)  # fmt: skip
        (axes,) = figure.axes
        for text in axes.texts:
            (point,) = [each for each in SWAPPED if each.label.startswith(text.get_text())]
            assert text.xy == (point.cost, point.score)


@pytest.mark.parametrize("year", [2019, 2026])
@pytest.mark.parametrize("millions", [0.1, 66, 340])
@pytest.mark.parametrize("count", [1, 12])
def test_the_papers_figure_has_room_for_its_names(year, millions, count):
    """Prevents twelve names in a heap, for ours are years later or a thousand times smaller."""
    published = published_sizes(load_paper())
    own = [Sized(f"m{n}", date(year, 11, 1 + n), millions * (1 + n)) for n in range(count)]
    marks = marks_of([each.label for each in own])
    with svg.chart_style():
        figure, has_names = timeline._figure(published, own, marks, in_legend=False)
        assert has_names
        assert len(figure.axes) == (1 if year == 2019 else 2)
        if year == 2026:
            (tick,) = figure.axes[1].get_xticklabels()
            assert tick.get_text() == "2026"
        assert [text.get_text() for text in figure.axes[0].texts] == [p.label for p in published]
        require_room(figure, figure.axes[0])
        beside = [axes.get_window_extent().x0 for axes in figure.axes[1:]]
        ends = [box.x1 for box in boxes(figure.axes[0], figure.axes[0].texts)]
        assert all(max(ends) <= start for start in beside)


def test_the_papers_figure_is_as_it_prints_it():
    """Prevents a size of another source among those of the figure, and a date nobody can check."""
    published = {each.label: each for each in published_sizes(load_paper())}
    assert published["MegatronLM"].millions == 8300
    assert published["DistilBERT"].millions == 66
    assert published["ELMo"].day < published["GPT"].day < published["BERT-Large"].day
    assert {each.day.year for each in published.values()} == {2018, 2019}
    chart = timeline.timeline(list(published.values()), [Sized("mine", date(2026, 1, 2), 66.4)],
                              marks_of(["mine"]))  # fmt: skip
    assert chart.words[1] == "Ours: mine 66.4 (2026-01)."
    assert "as the paper's Figure 1 prints them" in chart.caption
