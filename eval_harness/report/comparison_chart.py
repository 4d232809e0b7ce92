"""The chart of `compare`: how much higher each model scores than the first, task by task."""

from matplotlib.figure import Figure

from eval_harness.report import svg
from eval_harness.report.palette import INK
from eval_harness.report.panels import (
    Chart,
    add_legend,
    label_rows,
    legend_height,
    marks_of,
    offset,
    render,
    stacked,
)
from eval_harness.tables.compared import MEAN, Comparison, sentences


def comparison_chart(comparison: Comparison) -> Chart:
    """Draw the differences with their intervals; filled marks are significant ones."""
    labels = [entry.label for entry in comparison.entries[1:]]
    reference = comparison.reference.label
    marks = marks_of(labels)
    means = [MEAN] if comparison.has_mean else []
    tasks = [*means, *(task for task in comparison.tasks if task in comparison.scores)]
    titles = {**comparison.titles, MEAN: f"mean of {len(comparison.tasks)}"}
    caption = (
        f"Difference from {reference} in points, of the means over seeds, with 95 % intervals over "
        "examples and seeds. Filled: significant after Holm's correction."
    )

    def draw() -> Figure:
        row_height = 0.1 * len(labels) + 0.17
        figure = svg.new_figure(row_height * len(tasks) + 0.6 + legend_height(labels))
        (axes,) = stacked(figure, 1)
        for number in range(1, len(tasks), 2):
            axes.axhspan(number - 0.5, number + 0.5, color=INK, alpha=0.04, lw=0)
        axes.axvline(0, color=INK, lw=0.9, alpha=0.55)
        for (task, label), change in comparison.differences.items():
            place = tasks.index(task) + offset(labels.index(label), len(labels))
            colour, marker = marks[label]
            if change.half is not None:
                ends = (change.value - change.half, change.value + change.half)
                axes.hlines(place, *ends, color=colour, lw=1.4)
            face = colour if comparison.is_told(task, label) else "none"
            axes.plot(change.value, place, marker, color=colour, mfc=face, ms=5)
        label_rows(axes, [titles[task] for task in tasks])
        axes.set(xlabel=f"points above {reference}\nfilled: significant; line: 95 % interval")
        add_legend(figure, labels, marks)
        return figure

    title = f"Difference from {reference}"
    return render("comparison", title, caption, sentences(comparison), draw)
