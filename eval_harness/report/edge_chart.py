"""From teacher to edge: score against megabytes, a mark per step. Imports matplotlib."""

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from eval_harness.report import svg
from eval_harness.report.palette import INK
from eval_harness.report.panels import Chart, add_legend, legend_height, marks_of, render, stacked
from eval_harness.tables.cells import titles_of
from eval_harness.tables.edge import Edge, Step

NAME, TITLE = "teacher-to-edge", "From teacher to edge"


def edge_chart(edge: Edge, number: int) -> Chart | None:
    """Draw a line of models; None where fewer than two have a score and a size.

    Args:
        edge: the line.
        number: its number among the report's lines, from 1 on.
    """
    tasks = [
        task for task in edge.line.tasks if len([s for s in edge.steps if _is_shown(s, task)]) > 1
    ]
    if not tasks:
        return None
    labels = [step.made.label for step in edge.steps]
    marks = marks_of(labels)
    titles = titles_of([step.row for step in edge.steps if step.row is not None])
    words = [
        f"{titles[task]}: " + "; ".join(_words(step, task) for step in edge.steps) + "."
        for task in tasks
    ]

    def draw() -> Figure:
        figure = svg.new_figure(2.2 * len(tasks) + legend_height(labels))
        for axes, task in zip(stacked(figure, len(tasks)), tasks, strict=True):
            shown = [step for step in edge.steps if _is_shown(step, task)]
            places = [((step.made.bytes or 1) / 1e6, step.score(task) or 0.0) for step in shown]
            axes.plot(*zip(*places, strict=True), "-", color=INK, lw=0.8, alpha=0.4)
            for step, (x, y) in zip(shown, places, strict=True):
                colour, marker = marks[step.made.label]
                if (found := step.intervals.get(task)) and found.percent:
                    first, (low, high) = y - step.changes[task], found.percent
                    axes.vlines(x, first + low, first + high, color=colour, lw=1.4)
                axes.plot(x, y, marker, color=colour, ms=6)
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
            axes.set(xlabel="MB on disk", ylabel=titles[task])
        add_legend(figure, labels, marks)
        return figure

    caption = (
        "Score against the size of the weights, step by step. Lines: the 95 % interval of the "
        "difference from the first model, over evaluation examples."
    )
    name = NAME if number == 1 else f"{NAME}-{number}"
    return render(name, f"{TITLE}: {edge.label}", caption, words, draw)


def _is_shown(step: Step, task: str) -> bool:
    return step.score(task) is not None and bool(step.made.bytes)


def _words(step: Step, task: str) -> str:
    score, size = step.score(task), step.made.bytes
    said = "no score" if score is None else f"{score:.1f}"
    return f"{step.made.label} {said}" + (f" in {size / 1e6:.1f} MB" if size else "")
