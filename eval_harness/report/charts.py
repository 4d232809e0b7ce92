"""The report's figures: each with what it shows in words, and drawn. Imports matplotlib."""

import math
import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from angels_share.ablations import ABLATIONS
from eval_harness.report import svg
from eval_harness.report.chart_data import ALL, Loss, Place, Places, Seeds, Share
from eval_harness.report.palette import INK, LIGHT
from eval_harness.report.panels import (
    Mark,
    Picture,
    add_legend,
    below,
    in_order,
    in_pairs,
    label_rows,
    legend_height,
    made,
    offset,
)
from eval_harness.report.training_curves import PARTS, Curve
from eval_harness.tables.cells import title_of
from eval_harness.tasks.registry import GLUE


def score_against_cost(places: Places, marks: Mapping[str, Mark]) -> Picture:
    """The paper's Figure 1, with a score: what one gets for a model's size and time."""
    panels = [
        ("millions of parameters", places.sizes),
        (f"times as fast as {places.first}", places.speeds),
    ]
    panels = [(name, those) for name, those in panels if any(not each.is_paper for each in those)]
    words = [
        f"Score against {name}: "
        + "; ".join(f"{each.label} {each.score:.1f} at {_digits(each.cost)}" for each in those)
        + "."
        for name, those in panels
    ]
    over = _over(places.tasks)
    caption = f"Score: the mean of the medians over {over}."
    if places.speeds:
        threads = f"{places.threads} thread{'s' if places.threads > 1 else ''}"
        caption += f" Speed: batches of one, {threads}, all in one session."
    if any(each.is_paper for _, those in panels for each in those):
        caption += " Hollow: the paper's, over tasks of the same names, on its own data."

    def draw() -> Figure:
        shown = in_order(marks, [each.label for _, those in panels for each in those])
        drawing = svg.figure(2.1 * len(panels) + legend_height(shown))
        for axes, (name, those) in zip(below(drawing, len(panels)), panels, strict=True):
            _draw_places(axes, those, marks)
            axes.set(xlabel=name, ylabel="score")
        add_legend(drawing, shown, marks)
        return drawing

    return made("score-against-cost", "Score against size and speed", caption, words, draw)


def _over(tasks: Sequence[str]) -> str:
    if len(tasks) == len(GLUE):
        return "GLUE's nine tasks"
    return ", ".join(map(title_of, tasks))


def _draw_places(axes: Axes, places: Sequence[Place], marks: Mapping[str, Mark]) -> None:
    costs = [each.cost for each in places]
    if max(costs) > 8 * min(costs):
        axes.set_xscale("log")
        decades = max(costs) > 100 * min(costs)
        axes.xaxis.set_major_locator(LogLocator(subs=(1,) if decades else (1, 2, 5)))
        axes.xaxis.set_minor_locator(LogLocator(subs=()))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for each in places:
        if each.is_paper:
            axes.plot(each.cost, each.score, "o", mfc="none", mec=INK, alpha=0.7, ms=8, zorder=3)
            _beside(axes, each)
        else:
            colour, marker = marks[each.label]
            axes.plot(each.cost, each.score, marker, color=colour, ms=6.5)
    axes.margins(0.14, 0.24)


def _beside(axes: Axes, place: Place) -> None:
    """A published model's name; a student's is below it, where its teacher's is not."""
    text = place.label.removesuffix(" (paper)")
    below = text.startswith("Distil")
    axes.annotate(
        text,
        (place.cost, place.score),
        (0, -6 if below else 6),
        textcoords="offset points",
        ha="center",
        va="top" if below else "bottom",
        alpha=0.75,
    )


def retained_by_task(shares: Sequence[Share], marks: Mapping[str, Mark]) -> Picture:
    """What each student kept, task by task."""
    labels = in_order(marks, [each.label for each in shares])
    tasks = [task for task in (ALL, *map(title_of, GLUE)) if task in {each.task for each in shares}]
    teachers = {each.label: each.teacher for each in shares}
    words = [
        f"{label} of {teachers[label]}: "
        + ", ".join(f"{each.task} {each.percent:.1f} %{_to(each.interval)}"
                    for each in shares if each.label == label)
        + "."
        for label in labels
    ]  # fmt: skip
    caption = (
        "Each student's score as a percentage of its teacher's, with 95 % intervals from "
        "resampling the evaluation examples; they don't speak of other seeds. Arrows point to what "
        "lies beyond."
    )

    def draw() -> Figure:
        space = 0.1 * len(labels) + 0.17
        drawing = svg.figure(space * len(tasks) + 0.45 + legend_height(labels))
        (axes,) = below(drawing, 1)
        low, high = _limits(shares)
        for number in range(1, len(tasks), 2):
            axes.axhspan(number - 0.5, number + 0.5, color=INK, alpha=0.04, lw=0)
        axes.axvline(100, color=INK, lw=0.9, alpha=0.55)
        for share in shares:
            place = tasks.index(share.task) + offset(labels.index(share.label), len(labels))
            _draw_share(axes, share, place, marks[share.label], (low, high))
        label_rows(axes, tasks)
        axes.set(xlim=(low, high), xlabel="% of the teacher's score")
        add_legend(drawing, labels, marks)
        return drawing

    return made("retained-by-task", "What was retained, task by task", caption, words, draw)


def _limits(shares: Sequence[Share]) -> tuple[float, float]:
    """Room for every share and interval, but not for those of a teacher that is near nothing."""
    every = [end for each in shares for end in (each.percent, *(each.interval or ()))]
    low, high = max(min(*every, 100.0), 0.0), min(max(*every, 100.0), 200.0)
    margin = 0.04 * (high - low) or 1.0
    return low - margin, high + margin


def _draw_share(
    axes: Axes, share: Share, place: float, mark: Mark, limits: tuple[float, float]
) -> None:
    colour, marker = mark
    inside = limits[0] <= share.percent <= limits[1]
    if share.interval:
        axes.hlines(place, *share.interval, color=colour, lw=1.4)
    if not inside:
        marker = ">" if share.percent > limits[1] else "<"
    at = min(max(share.percent, limits[0]), limits[1])
    axes.plot(at, place, marker, color=colour, ms=4.5, clip_on=inside)


def seeds_by_task(seeds: Sequence[Seeds], marks: Mapping[str, Mark]) -> Picture:
    """Every run as a point, since a median hides how far apart they are."""
    labels = in_order(marks, [each.label for each in seeds])
    by_task: dict[str, list[Seeds]] = defaultdict(list)
    for each in seeds:
        by_task[each.task].append(each)
    words = [
        f"{task}: "
        + "; ".join(f"{each.label} {each.median:.1f}, median of {_listed(each)}"
                    for each in those)
        + "."
        for task, those in by_task.items()
    ]  # fmt: skip
    caption = (
        "A point is a run with its own seed, a bar their median. Every task has its own scale."
    )
    if any(any(each.degenerate) for each in seeds):
        caption += " Hollow: a run that gave one answer to everything."

    def draw() -> Figure:
        rows = math.ceil(len(by_task) / 2)
        drawing = svg.figure(1.4 * rows + 0.1 + legend_height(labels))
        for axes, (task, those) in zip(
            in_pairs(drawing, len(by_task)), by_task.items(), strict=True
        ):
            for each in those:
                _draw_seeds(axes, each, labels.index(each.label), marks[each.label])
            axes.set(xlim=(-0.6, len(labels) - 0.4), xticks=[])
            axes.set_title(task)
            axes.margins(y=0.14)
            axes.grid(visible=False, axis="x")
            axes.yaxis.set_major_locator(MaxNLocator(4, min_n_ticks=2))
        add_legend(drawing, labels, marks)
        return drawing

    return made("seeds-by-task", "Seeds, one by one", caption, words, draw)


def _draw_seeds(axes: Axes, seeds: Seeds, place: int, mark: Mark) -> None:
    colour, marker = mark
    spread = np.linspace(-0.18, 0.18, len(seeds.scores)) if len(seeds.scores) > 1 else [0.0]
    for at, score, hollow in zip(spread, seeds.scores, seeds.degenerate, strict=True):
        how = {"mfc": "none", "mew": 1.0} if hollow else {"mew": 0}
        axes.plot(place + at, score, marker, color=colour, ms=4.5, alpha=0.75, **how)
    axes.hlines(seeds.median, place - 0.34, place + 0.34, color=colour, lw=2)


def ablation(losses: Sequence[Loss], paper: Mapping[str, float]) -> Picture:
    """What each part of the triple loss is worth, ours and the paper's."""
    several = len({each.full for each in losses}) > 1
    names = [name for name in ABLATIONS if name in paper or any(each.left_out == name
                                                               for each in losses)]  # fmt: skip
    words = [
        "Ours: "
        + "; ".join(f"{_left_out(each, several=several)} {each.points:+.2f}{_to(each.interval, 2)}"
                    f", n {each.n} against {each.n_full}" for each in losses)
        + ".",
        "The paper's: "
        + "; ".join(f"{ABLATIONS[name].title} {change:+.2f}" for name, change in paper.items())
        + ".",
    ]  # fmt: skip
    counts = {each.tasks for each in losses}
    tasks = (
        "all nine"
        if counts == {len(GLUE)}
        else f"{' or '.join(map(str, sorted(counts)))} of the nine"
    )
    caption = (
        f"By how many points GLUE's mean score, over {tasks} tasks, changes when a part is left "
        "out, with 95 % intervals from resampling the evaluation examples; they don't speak of "
        "other seeds. n: the seeds without it, against those of the full loss. Hollow: the paper's."
    )

    def draw() -> Figure:
        bars = _bars(losses, names, paper, several=several)
        labels = [_wrapped(bar.label) for bar in bars]
        places = _places(bars, labels)
        drawing = svg.figure(0.25 * places[-1] + 0.7)
        (axes,) = below(drawing, 1)
        for bar, place in zip(bars, places, strict=True):
            _draw_bar(axes, bar, place)
        axes.axvline(0, color=INK, lw=0.9, alpha=0.55)
        label_rows(axes, labels, places)
        axes.set(xlabel="change of the score, in points")
        return drawing

    return made("ablation", "What each part of the loss is worth", caption, words, draw)


@dataclass(frozen=True)
class _Bar:
    label: str
    points: float
    interval: tuple[float, float] | None = None
    is_paper: bool = False
    starts: bool = False


def _bars(
    losses: Sequence[Loss], names: Sequence[str], paper: Mapping[str, float], *, several: bool
) -> list[_Bar]:
    """Ours, then the paper's, for each thing that is left out."""
    bars: list[_Bar] = []
    for name in names:
        ours = [each for each in losses if each.left_out == name]
        group = [
            _Bar(
                f"{_left_out(each, several=several)}\nn {each.n} against {each.n_full}",
                each.points,
                each.interval,
            )
            for each in ours
        ]
        if name in paper:
            label = "the paper" if ours else f"{ABLATIONS[name].title} (paper)"
            group.append(_Bar(label, paper[name], is_paper=True))
        bars += [
            _Bar(each.label, each.points, each.interval, each.is_paper, starts=number == 0)
            for number, each in enumerate(group)
        ]
    return bars


def _places(bars: Sequence[_Bar], labels: Sequence[str]) -> list[float]:
    """From the top down: groups apart, and labels of several lines apart from their neighbours."""
    lines = [label.count("\n") for label in labels]
    steps = [
        (1.5 if bar.starts else 1.0) + 0.3 * (above + own)
        for bar, above, own in zip(bars, [0, *lines], lines, strict=False)
    ]
    return list(accumulate(steps))


def _wrapped(label: str) -> str:
    return "\n".join(part for line in label.splitlines() for part in textwrap.wrap(line, 18))


def _left_out(loss: Loss, *, several: bool) -> str:
    name = ABLATIONS[loss.left_out].title
    return f"{name} ({loss.label})" if several else name


def _draw_bar(axes: Axes, bar: _Bar, place: float) -> None:
    if bar.is_paper:
        axes.barh(place, bar.points, 0.62, facecolor="none", edgecolor=INK, lw=0.9, alpha=0.6)
        return
    axes.barh(place, bar.points, 0.72, color=LIGHT[0], alpha=0.6)
    if bar.interval:
        axes.hlines(place, *bar.interval, color=INK, lw=1.3)


def training_curves(curves: Sequence[Curve], marks: Mapping[str, Mark]) -> Picture:
    """The parts of the loss while students were made, each in its own panel."""
    students = in_order(marks, [each.student for each in curves])
    parts = [part for part in PARTS if any(each.part == part for each in curves)]
    words = [
        f"{PARTS[part]}: "
        + "; ".join(_course(each) for each in curves if each.part == part)
        + "."
        for part in parts
    ]  # fmt: skip
    caption = "Each part of the loss by step, before it is weighed."
    if any(each.held_out for each in curves):
        caption += " Markers: on text that was held out."

    def draw() -> Figure:
        drawing = svg.figure(1.8 * len(parts) + 0.2 + legend_height(students))
        for axes, part in zip(below(drawing, len(parts), sharex=True), parts, strict=True):
            for each in curves:
                if each.part == part:
                    _draw_curve(axes, each, marks[each.student])
            axes.set_title(PARTS[part][0].upper() + PARTS[part][1:])
            axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        add_legend(drawing, students, marks)
        return drawing

    return made("training-curves", "Training, part by part", caption, words, draw)


def _draw_curve(axes: Axes, curve: Curve, mark: Mark) -> None:
    colour, marker = mark
    if curve.held_out:
        axes.plot(curve.steps, curve.values, marker, color=colour, ms=4.5)
    else:
        alone = marker if len(curve.steps) == 1 else ""
        axes.plot(curve.steps, curve.values, "-", marker=alone, color=colour, lw=1.5)


def _course(curve: Curve) -> str:
    """`distilled from 4.20 at step 10 to 2.91 at step 150`."""
    where = ", held out," if curve.held_out else ""
    end = f"{_digits(curve.values[-1])} at step {curve.steps[-1]}"
    if len(curve.steps) == 1:
        return f"{curve.student}{where} {end}"
    start = f"{_digits(curve.values[0])} at step {curve.steps[0]}"
    return f"{curve.student}{where} from {start} to {end}"


def _to(interval: tuple[float, float] | None, digits: int = 1) -> str:
    """` (88.0 to 94.2)`."""
    return f" ({interval[0]:.{digits}f} to {interval[1]:.{digits}f})" if interval else ""


def _listed(seeds: Seeds) -> str:
    """`74.5, 61.0 (degenerate), 80.3`."""
    pairs = zip(seeds.scores, seeds.degenerate, strict=True)
    return ", ".join(f"{score:.1f}{' (degenerate)' if hollow else ''}" for score, hollow in pairs)


def _digits(value: float) -> str:
    """Three that say something."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
