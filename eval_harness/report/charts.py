"""The report's charts, each drawn and described in words. Imports matplotlib."""

import math
import textwrap
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from angels_share.ablations import ABLATIONS
from eval_harness.report import svg
from eval_harness.report.chart_data import (
    ALL,
    AblationEffect,
    CostPoint,
    CostPoints,
    ProbePoints,
    RetainedShare,
    SeedScores,
)
from eval_harness.report.names import name_points
from eval_harness.report.palette import INK, LIGHT
from eval_harness.report.panels import (
    Chart,
    Mark,
    add_legend,
    in_order,
    in_two_columns,
    label_rows,
    legend_height,
    marks_of,
    offset,
    render,
    stacked,
)
from eval_harness.report.training_curves import PARTS, Curve, title_of_part
from eval_harness.tables.cells import title_of
from eval_harness.tasks.registry import GLUE

_Labelled = TypeVar("_Labelled", SeedScores, ProbePoints)


def score_against_cost(points: CostPoints, marks: Mapping[str, Mark]) -> Chart:
    """Draw the score against size and speed: the paper's Figure 1, with a score."""
    panels = [
        (axis, of_panel)
        for axis, of_panel in (
            ("millions of parameters", points.sizes),
            (f"times as fast as {points.reference}", points.speeds),
        )
        if any(not point.is_paper for point in of_panel)
    ]
    words = []
    for axis, of_panel in panels:
        listed = "; ".join(
            f"{point.label} {point.score:.1f} at {_digits(point.cost)}" for point in of_panel
        )
        words.append(f"Score against {axis}: {listed}.")
    caption = f"Score: the mean of the medians over {_over(points)}."
    if points.speeds:
        threads = f"{points.threads} thread{'s' if points.threads > 1 else ''}"
        caption += f" Speed: at batch size 1, {threads}, all in one session."
    if any(point.is_paper for _, of_panel in panels for point in of_panel):
        caption += " Hollow: the paper's, over tasks of the same names, on its own data."

    def draw() -> Figure:
        # Names beside the published points read best; where there is no room, a legend has them.
        figure, has_names = _cost_figure(panels, marks, in_legend=False)
        return figure if has_names else _cost_figure(panels, marks, in_legend=True)[0]

    return render("score-against-cost", "Score against size and speed", caption, words, draw)


def _over(points: CostPoints) -> str:
    return "GLUE's nine tasks" if points.tasks == GLUE else ", ".join(points.titles)


def _cost_figure(
    panels: Sequence[tuple[str, Sequence[CostPoint]]], marks: Mapping[str, Mark], *, in_legend: bool
) -> tuple[Figure, bool]:
    """Return the figure, and whether the published models have their names."""
    points = [point for _, of_panel in panels for point in of_panel]
    shown = in_order(marks, [point.label for point in points])
    published = list(dict.fromkeys(point.label for point in points if point.is_paper))
    hollow = marks_of(published) if in_legend else {}
    figure = svg.new_figure(2.1 * len(panels) + legend_height([*shown, *hollow]))
    every = list(zip(stacked(figure, len(panels)), panels, strict=True))
    for axes, (axis, of_panel) in every:
        _draw_points(axes, of_panel, {**marks, **hollow})
        axes.set(xlabel=axis, ylabel="score")
    add_legend(figure, shown, marks, hollow)
    return figure, in_legend or all(_name_published(axes, each) for axes, (_, each) in every)


def _name_published(axes: Axes, points: Sequence[CostPoint]) -> bool:
    """Name the published models beside their points; return whether there was room."""
    named = [(point.label.removesuffix(" (paper)"), point.cost, point.score)
             for point in points if point.is_paper]  # fmt: skip
    others = [(point.cost, point.score) for point in points if not point.is_paper]
    return name_points(axes, named, others)


def _draw_points(axes: Axes, points: Sequence[CostPoint], marks: Mapping[str, Mark]) -> None:
    costs = [point.cost for point in points]
    if max(costs) > 8 * min(costs):
        axes.set_xscale("log")
        decades = max(costs) > 100 * min(costs)
        axes.xaxis.set_major_locator(LogLocator(subs=(1,) if decades else (1, 2, 5)))
        axes.xaxis.set_minor_locator(LogLocator(subs=()))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for point in points:
        if point.is_paper:
            colour, marker = marks.get(point.label, (INK, "o"))
            axes.plot(point.cost, point.score, marker, mfc="none", mec=colour, alpha=0.7, ms=8,
                      zorder=3)  # fmt: skip
        else:
            colour, marker = marks[point.label]
            axes.plot(point.cost, point.score, marker, color=colour, ms=6.5)
    axes.margins(0.14, 0.24)


def retained_by_task(shares: Sequence[RetainedShare], marks: Mapping[str, Mark]) -> Chart:
    """Draw what each student retained, task by task."""
    labels = in_order(marks, [share.label for share in shares])
    with_share = {share.task for share in shares}
    tasks = [task for task in (ALL, *map(title_of, GLUE)) if task in with_share]
    teachers = {share.label: share.teacher for share in shares}
    words = []
    for label in labels:
        listed = ", ".join(
            f"{share.task} {share.percent:.1f} %{_range(share.interval)}"
            for share in shares
            if share.label == label
        )
        words.append(f"{label} of {teachers[label]}: {listed}.")
    caption = (
        "Each student's score as a percentage of its teacher's, with 95 % intervals from "
        "resampling the evaluation examples; they do not cover variation over seeds. Arrows "
        "point to values outside the chart."
    )
    title = "What was retained, task by task"
    if len(labels) > _MOST_STUDENTS:
        title = f"What was retained, {tasks[0] if tasks[0] == ALL else f'on {tasks[0]}'}"

    def draw() -> Figure:
        if len(labels) > _MOST_STUDENTS:
            return _one_row_each([share for share in shares if share.task == tasks[0]])
        row_height = 0.1 * len(labels) + 0.17
        figure = svg.new_figure(row_height * len(tasks) + 0.45 + legend_height(labels))
        (axes,) = stacked(figure, 1)
        low, high = _limits(shares)
        for number in range(1, len(tasks), 2):
            axes.axhspan(number - 0.5, number + 0.5, color=INK, alpha=0.04, lw=0)
        axes.axvline(100, color=INK, lw=0.9, alpha=0.55)
        for share in shares:
            place = tasks.index(share.task) + offset(labels.index(share.label), len(labels))
            _draw_share(axes, share, place, marks[share.label], (low, high))
        label_rows(axes, tasks)
        axes.set(xlim=(low, high), xlabel="% of the teacher's score")
        add_legend(figure, labels, marks)
        return figure

    return render("retained-by-task", title, caption, words, draw)


_MOST_STUDENTS = 8
"""Students of whom every task is drawn: of more a phone would show one task at a time."""


def _one_row_each(shares: Sequence[RetainedShare]) -> Figure:
    """Return a figure with a row for each student, the best first."""
    best_first = sorted(shares, key=lambda share: (-share.percent, share.label))
    labels = [_wrapped(share.label, 22) for share in best_first]
    heights = [1.0 + 0.75 * label.count("\n") for label in labels]
    places = [end - own / 2 for end, own in zip(accumulate(heights), heights, strict=True)]
    figure = svg.new_figure(0.19 * sum(heights) + 0.5)
    (axes,) = stacked(figure, 1)
    limits = _limits(shares)
    axes.axvline(100, color=INK, lw=0.9, alpha=0.55)
    for share, place in zip(best_first, places, strict=True):
        _draw_share(axes, share, place, (LIGHT[0], svg.MARKERS[0]), limits)
    label_rows(axes, labels, places)
    axes.set(xlim=limits, xlabel="% of the teacher's score")
    return figure


def _limits(shares: Sequence[RetainedShare]) -> tuple[float, float]:
    """Return limits for all shares and intervals, within 0 and 200 %.

    A teacher with a score near 0 gives shares of any size: those would flatten all others.
    """
    values = [end for share in shares for end in (share.percent, *(share.interval or ()))]
    low, high = max(min(*values, 100.0), 0.0), min(max(*values, 100.0), 200.0)
    margin = 0.04 * (high - low) or 1.0
    return low - margin, high + margin


def _draw_share(
    axes: Axes, share: RetainedShare, place: float, mark: Mark, limits: tuple[float, float]
) -> None:
    colour, marker = mark
    inside = limits[0] <= share.percent <= limits[1]
    if share.interval:
        axes.hlines(place, *share.interval, color=colour, lw=1.4)
    if not inside:
        marker = ">" if share.percent > limits[1] else "<"
    at = min(max(share.percent, limits[0]), limits[1])
    axes.plot(at, place, marker, color=colour, ms=4.5, clip_on=inside)


def seeds_by_task(seeds: Sequence[SeedScores], marks: Mapping[str, Mark]) -> Chart:
    """Draw every run as a point: a median hides how far apart they are."""
    labels = in_order(marks, [each.label for each in seeds])
    by_task: dict[str, list[SeedScores]] = defaultdict(list)
    for each in seeds:
        by_task[each.task].append(each)
    words = []
    for task, of_task in by_task.items():
        listed = "; ".join(
            f"{each.label} {each.median:.1f}, median of {_listed(each)}" for each in of_task
        )
        words.append(f"{task}: {listed}.")
    caption = "A point is a run with its own seed, a bar their median. Each task has its own scale."
    if any(any(each.degenerate) for each in seeds):
        caption += " Hollow: a run that gave one answer to everything, or nearly one number."

    def draw() -> Figure:
        return _panel_each(by_task, labels, marks, _draw_seeds)

    return render("seeds-by-task", "Seeds, one by one", caption, words, draw)


def before_fine_tuning(points: Sequence[ProbePoints], marks: Mapping[str, Mark]) -> Chart:
    """Draw what `probe` measured: a panel for each measure."""
    labels = in_order(marks, [each.label for each in points])
    by_measure: dict[str, list[ProbePoints]] = defaultdict(list)
    for each in points:
        by_measure[each.measure].append(each)
    words = []
    for measure, of_measure in by_measure.items():
        listed = "; ".join(f"{each.label} {each.mean:.{each.digits}f}" for each in of_measure)
        words.append(f"{measure}: {listed}.")
    caption = (
        "A point is a model of one pre-training seed, a bar the mean over seeds. A vertical line: "
        "the 95 % interval of the difference from the first student, which has none. Arrows in "
        "titles: which way is better. †: what distillation itself minimises."
    )

    def draw() -> Figure:
        return _panel_each(by_measure, labels, marks, _draw_probe)

    return render("before-fine-tuning", "Before any fine-tuning", caption, words, draw)


def _panel_each(
    groups: Mapping[str, Sequence[_Labelled]],
    labels: Sequence[str],
    marks: Mapping[str, Mark],
    draw: Callable[[Axes, _Labelled, int, Mark], None],
) -> Figure:
    """Return a figure with a panel for each group, and in it a place for each label."""
    figure = svg.new_figure(1.4 * math.ceil(len(groups) / 2) + 0.1 + legend_height(labels))
    panels = in_two_columns(figure, len(groups))
    for axes, (title, group) in zip(panels, groups.items(), strict=True):
        for each in group:
            draw(axes, each, labels.index(each.label), marks[each.label])
        axes.set(xlim=(-0.6, len(labels) - 0.4), xticks=[])
        axes.set_title(title)
        axes.margins(y=0.14)
        axes.grid(visible=False, axis="x")
        axes.yaxis.set_major_locator(MaxNLocator(4, min_n_ticks=2))
    add_legend(figure, labels, marks)
    return figure


def _draw_probe(axes: Axes, points: ProbePoints, place: int, mark: Mark) -> None:
    colour, marker = mark
    if points.half is not None:
        axes.vlines(place, points.mean - points.half, points.mean + points.half, color=colour, lw=1)
    spread = np.linspace(-0.18, 0.18, len(points.scores)) if len(points.scores) > 1 else [0.0]
    for shift, score in zip(spread, points.scores, strict=True):
        axes.plot(place + shift, score, marker, color=colour, ms=4, alpha=0.75, mew=0)
    axes.hlines(points.mean, place - 0.34, place + 0.34, color=colour, lw=2)


def _draw_seeds(axes: Axes, seeds: SeedScores, place: int, mark: Mark) -> None:
    colour, marker = mark
    spread = np.linspace(-0.18, 0.18, len(seeds.scores)) if len(seeds.scores) > 1 else [0.0]
    for shift, score, hollow in zip(spread, seeds.scores, seeds.degenerate, strict=True):
        style = {"mfc": "none", "mew": 1.0} if hollow else {"mew": 0}
        axes.plot(place + shift, score, marker, color=colour, ms=4.5, alpha=0.75, **style)
    axes.hlines(seeds.median, place - 0.34, place + 0.34, color=colour, lw=2)


def ablation(effects: Sequence[AblationEffect], paper: Mapping[str, float]) -> Chart:
    """Draw what each part of the triple loss is worth, ours and the paper's.

    Args:
        effects: our changes of the score.
        paper: the paper's changes by ablation.
    """
    several = len({effect.full for effect in effects}) > 1
    ablated = {effect.left_out for effect in effects}
    names = [name for name in ABLATIONS if name in paper or name in ablated]
    ours = "; ".join(
        f"{_left_out(effect, several=several)} {effect.points:+.2f}{_range(effect.interval, 2)}"
        f", n {effect.n} against {effect.n_full}"
        for effect in effects
    )
    papers = "; ".join(f"{ABLATIONS[name].title} {change:+.2f}" for name, change in paper.items())
    words = [f"Ours: {ours}.", f"The paper's: {papers}."]
    counts = {effect.tasks for effect in effects}
    tasks = "all nine tasks"
    if counts != {len(GLUE)}:
        tasks = f"{' or '.join(map(str, sorted(counts)))} of the nine tasks"
    caption = (
        f"By how many points GLUE's mean score, over {tasks}, changes when a part is left out, "
        "with 95 % intervals from resampling the evaluation examples; they do not cover variation "
        "over seeds. n: the seeds without the part, against those of the full loss. Hollow: the "
        "paper's."
    )

    def draw() -> Figure:
        bars = _bars(effects, names, paper, several=several)
        labels = [_wrapped(bar.label) for bar in bars]
        places = _places(bars, labels)
        figure = svg.new_figure(0.25 * places[-1] + 0.7)
        (axes,) = stacked(figure, 1)
        for bar, place in zip(bars, places, strict=True):
            _draw_bar(axes, bar, place)
        axes.axvline(0, color=INK, lw=0.9, alpha=0.55)
        label_rows(axes, labels, places)
        axes.set(xlabel="change of the score, in points")
        return figure

    return render("ablation", "What each part of the loss is worth", caption, words, draw)


@dataclass(frozen=True)
class _Bar:
    label: str
    points: float
    interval: tuple[float, float] | None = None
    is_paper: bool = False
    starts_group: bool = False


def _bars(
    effects: Sequence[AblationEffect],
    names: Sequence[str],
    paper: Mapping[str, float],
    *,
    several: bool,
) -> list[_Bar]:
    """Return for each ablation our bars, then the paper's."""
    bars: list[_Bar] = []
    for name in names:
        group = [
            _Bar(
                f"{_left_out(effect, several=several)}\nn {effect.n} against {effect.n_full}",
                effect.points,
                effect.interval,
            )
            for effect in effects
            if effect.left_out == name
        ]
        if name in paper:
            label = "the paper" if group else f"{ABLATIONS[name].title} (paper)"
            group.append(_Bar(label, paper[name], is_paper=True))
        bars += [replace(bar, starts_group=index == 0) for index, bar in enumerate(group)]
    return bars


def _places(bars: Sequence[_Bar], labels: Sequence[str]) -> list[float]:
    """Return the bars' positions from the top, with space between groups and for long labels."""
    breaks = [label.count("\n") for label in labels]
    steps = [
        (1.5 if bar.starts_group else 1.0) + 0.3 * (above + own)
        for bar, above, own in zip(bars, [0, *breaks], breaks, strict=False)
    ]
    return list(accumulate(steps))


def _wrapped(label: str, width: int = 18) -> str:
    return "\n".join(part for line in label.splitlines() for part in textwrap.wrap(line, width))


def _left_out(effect: AblationEffect, *, several: bool) -> str:
    name = ABLATIONS[effect.left_out].title
    return f"{name} ({effect.label})" if several else name


def _draw_bar(axes: Axes, bar: _Bar, place: float) -> None:
    if bar.is_paper:
        axes.barh(place, bar.points, 0.62, facecolor="none", edgecolor=INK, lw=0.9, alpha=0.6)
        return
    axes.barh(place, bar.points, 0.72, color=LIGHT[0], alpha=0.6)
    if bar.interval:
        axes.hlines(place, *bar.interval, color=INK, lw=1.3)


def training_curves(curves: Sequence[Curve], marks: Mapping[str, Mark]) -> Chart:
    """Draw the parts of the loss in training, each in its own panel."""
    students = in_order(marks, [curve.student for curve in curves])
    present = {curve.part for curve in curves}
    parts = [*(part for part in PARTS if part in present), *sorted(present - PARTS.keys())]
    words = []
    for part in parts:
        listed = "; ".join(_course(curve) for curve in curves if curve.part == part)
        words.append(f"{title_of_part(part)}: {listed}.")
    caption = "Each part of the loss by step, before weighting."
    if any(curve.held_out for curve in curves):
        caption += " Markers: on held-out text."

    def draw() -> Figure:
        figure = svg.new_figure(1.8 * len(parts) + 0.2 + legend_height(students))
        for axes, part in zip(stacked(figure, len(parts), sharex=True), parts, strict=True):
            for curve in curves:
                if curve.part == part:
                    _draw_curve(axes, curve, marks[curve.student])
            title = title_of_part(part)
            axes.set_title(title[0].upper() + title[1:])
            axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        add_legend(figure, students, marks)
        return figure

    return render("training-curves", "Training, part by part", caption, words, draw)


def _draw_curve(axes: Axes, curve: Curve, mark: Mark) -> None:
    colour, marker = mark
    if curve.held_out:
        axes.plot(curve.steps, curve.values, marker, color=colour, ms=4.5)
    else:
        of_one_step = marker if len(curve.steps) == 1 else ""
        axes.plot(curve.steps, curve.values, "-", marker=of_one_step, color=colour, lw=1.5)


def _course(curve: Curve) -> str:
    """Return `distilled from 4.20 at step 10 to 2.91 at step 150`."""
    where = ", held out," if curve.held_out else ""
    end = f"{_digits(curve.values[-1])} at step {curve.steps[-1]}"
    if len(curve.steps) == 1:
        return f"{curve.student}{where} {end}"
    start = f"{_digits(curve.values[0])} at step {curve.steps[0]}"
    return f"{curve.student}{where} from {start} to {end}"


def _range(interval: tuple[float, float] | None, digits: int = 1) -> str:
    """Return ` (88.0 to 94.2)`."""
    return f" ({interval[0]:.{digits}f} to {interval[1]:.{digits}f})" if interval else ""


def _listed(seeds: SeedScores) -> str:
    """Return `74.5, 61.0 (degenerate), 80.3`."""
    pairs = zip(seeds.scores, seeds.degenerate, strict=True)
    return ", ".join(f"{score:.1f}{' (degenerate)' if odd else ''}" for score, odd in pairs)


def _digits(value: float) -> str:
    """Return a number with three significant digits, or all of its integer digits."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
