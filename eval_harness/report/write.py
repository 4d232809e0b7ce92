"""Writes the report: one HTML page and its charts, a function of files. Imports no torch.

python -m eval_harness report --students my-distil
"""

import shlex
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from angels_share.errors import UserError
from angels_share.files import write_atomically
from angels_share.imports import require_extra
from eval_harness.report.chart_data import (
    ablation_effects,
    cost_points,
    probe_points,
    retained_shares,
    seed_scores,
    tasks_in_order,
)
from eval_harness.report.explained import explained_tasks
from eval_harness.report.highlights import highlights
from eval_harness.report.html import Content, MissingChart, page
from eval_harness.report.leaderboard import leaderboard
from eval_harness.report.training_curves import Curve, load_training_curves
from eval_harness.results.record import TaskResult
from eval_harness.results.store import Invalid, find
from eval_harness.rows.labels import footnotes_of, one_line
from eval_harness.tables.cells import titles_of
from eval_harness.tables.paper import load_paper
from eval_harness.tables.write import OurResults, load_results, make_tables

if TYPE_CHECKING:
    from eval_harness.report.panels import Chart

PAGE = "report.html"
_DEFAULT_ROOT = "results"
CHARTS = "figures"


def write_report(root: Path | str, students: Sequence[Path | str] = ()) -> list[str]:
    """Write the page and its charts into a results folder.

    The same files under the same names give the same bytes.

    Args:
        root: the results folder.
        students: folders of students, for their training curves.

    Returns:
        A line for the page, and where there are such, for the charts, for charts that were
        removed, and for files that don't count.

    Raises:
        UserError: matplotlib is missing, the results folder does not exist, or a folder has no
            student.
    """
    require_extra("matplotlib", "report", "the report")  # tables do without it
    folder, training = Path(root).expanduser(), load_training_curves(students)
    if not folder.is_dir():
        raise UserError(
            f"--results_dir {folder}: not a folder; name one that has results, which {_EVALUATE} "
            "produces"
        )
    paper, ours = load_paper(), load_results(find(folder), folder)
    charts, missing = _draw_charts(paper, ours, folder, training.curves)
    not_counted = _not_counted(ours, training.invalid)
    content = Content(
        title=_title(ours),
        highlights=highlights(ours),
        footnotes=footnotes_of(ours.rows),
        leaderboard=leaderboard(ours.rows, ours.speeds, folder),
        facts={**_facts(ours), **({"Not counted": not_counted} if not_counted else {})},
        compared=ours.compared,
        charts=charts,
        missing=missing,
        tasks=explained_tasks(ours.rows),
        tables=make_tables(paper, ours),
        command=_command(folder, students),
    )
    lines = [str(write_atomically(folder / PAGE, page(content)))]
    lines += _write_charts(folder / CHARTS, charts)
    lines += _remove_charts(folder / CHARTS, missing)
    return [*lines, f"not counted: {not_counted}"] if not_counted else lines


def _command(root: Path, students: Sequence[Path | str]) -> str:
    """Return the command without the paths of this machine: the page is for others."""
    words = ["python", "-m", "eval_harness", "report"]
    if (name := root.resolve().name) != _DEFAULT_ROOT:
        words += ["--results_dir", name]
    names = [Path(student).expanduser().resolve().name for student in students]
    return shlex.join([*words, *(["--students", *names] if names else [])])


def _write_charts(folder: Path, charts: Sequence["Chart"]) -> list[str]:
    """Write the charts' files; return a line about them, if there are any."""
    from eval_harness.report.svg import standalone

    for chart in charts:
        write_atomically(folder / f"{chart.name}.svg", standalone(chart.svg))
        write_atomically(folder / f"{chart.name}.png", chart.png)
    count = f"{len(charts)} chart{'s' if len(charts) > 1 else ''}"
    return [f"{folder}: {count}, as SVG and PNG"] if charts else []


def _remove_charts(folder: Path, missing: Sequence[MissingChart]) -> list[str]:
    """Remove old files of charts that have no data any more; return a line for each chart."""
    lines = []
    for chart in missing:
        files = [folder / f"{chart.name}{suffix}" for suffix in (".svg", ".png")]
        stale = [path for path in files if path.exists()]
        for path in stale:
            path.unlink()
        if stale:
            names = " and ".join(path.name for path in stale)
            lines.append(
                f"{folder}: removed {names}: no data for it any more; {chart.command} produces some"
            )
    return lines


_EVALUATE = "python run_glue.py --model bert distilbert"
_TIME = "python -m eval_harness speed --model bert distilbert"
_PROBE = "python -m eval_harness probe --model my-distil --teacher bert --text held-out.txt"
_STUDY = "make study TEACHER=bert CORPUS=wiki.txt DATA=glue_data OUT=study"
_CURVES = "python -m eval_harness report --students my-distil"


def _draw_charts(
    paper: Mapping[str, Any], ours: OurResults, folder: Path, curves: Sequence[Curve]
) -> tuple[list["Chart"], list[MissingChart]]:
    """Return the charts that have data, and for the others the commands that produce it."""
    from eval_harness.report import charts, timeline
    from eval_harness.report.edge_chart import edge_chart
    from eval_harness.report.panels import marks_of

    probed = probe_points(ours.probed)
    marks = marks_of(
        [
            *(row.short for row in ours.rows),
            *(each.label for each in probed),
            *(curve.student for curve in curves),
        ]
    )
    points = cost_points(paper, ours.rows, ours.speeds)
    shares, seeds = retained_shares(ours.compared, folder), seed_scores(ours.rows)
    effects = ablation_effects(ours.changes)
    sizes = timeline.our_sizes(ours.rows, ours.speeds)
    all_charts: list[tuple[bool, Callable[[], Chart], MissingChart]] = [
        (
            bool(shares),
            lambda: charts.retained_by_task(shares, marks),
            MissingChart("retained-by-task", "What was retained, task by task", _EVALUATE),
        ),
        (
            bool(probed),
            lambda: charts.before_fine_tuning(probed, marks),
            MissingChart("before-fine-tuning", "Before any fine-tuning", _PROBE),
        ),
        (
            points.has_ours,
            lambda: charts.score_against_cost(points, marks),
            MissingChart(
                "score-against-cost", "Score against size and speed", _TIME if seeds else _EVALUATE
            ),
        ),
        (
            bool(sizes),
            lambda: timeline.timeline(timeline.published_sizes(paper), sizes, marks),
            MissingChart(timeline.NAME, timeline.TITLE, _TIME if seeds else _EVALUATE),
        ),
        (
            bool(seeds),
            lambda: charts.seeds_by_task(seeds, marks),
            MissingChart("seeds-by-task", "Seeds, one by one", _EVALUATE),
        ),
        (
            bool(effects),
            lambda: charts.ablation(effects, paper["table4"]["rows"]),
            MissingChart("ablation", "What each part of the loss is worth", _STUDY),
        ),
        (
            bool(curves),
            lambda: charts.training_curves(curves, marks),
            MissingChart("training-curves", "Training, part by part", _CURVES),
        ),
    ]
    footnotes = footnotes_of(ours.rows)
    drawn = [_explained(draw(), footnotes) for has_data, draw, _ in all_charts if has_data]
    edges = [edge_chart(edge, number) for number, edge in enumerate(ours.edges, 1)]
    drawn += [_explained(chart, footnotes) for chart in edges if chart is not None]
    return drawn, [missing for has_data, _, missing in all_charts if not has_data]


def _explained(chart: "Chart", footnotes: Sequence[str]) -> "Chart":
    """Return a chart whose caption says what the marks in its names stand for."""
    words = " ".join(chart.words)
    used = [note for note in footnotes if note.partition(" ")[0] in words]
    return replace(chart, caption=" ".join([chart.caption, *used]))


_MAX_NAMES = 3
"""Models that the title names; of more it gives the number."""
_MAX_LENGTH = 36
"""Characters of their names, for a heading that a phone shows in two lines."""


def _title(ours: OurResults) -> str:
    names = list(dict.fromkeys(row.model.name for row in ours.rows))
    if not names:
        return "Angel's Share"
    is_short = len(names) <= _MAX_NAMES and len(", ".join(names)) <= _MAX_LENGTH
    listed = ", ".join(names) if is_short else f"{len(names)} models"
    results = [result for row in ours.rows for result in row.results]
    data = sorted({str(result.data["name"]) for result in results if "name" in result.data})
    return one_line(f"Angel's Share: {listed}{', on ' if data else ''}{' and '.join(data)}")


def _facts(ours: OurResults) -> dict[str, str]:
    """Return the models, tasks, seeds, data, dates, machines and versions behind the page."""
    results = list({result.key: result for row in ours.rows for result in row.results}.values())
    if not results:
        return {"Results": f"none yet; {_EVALUATE} produces some"}
    finished = sorted(result.finished for result in results)
    models = {row.model.key: row.model for row in ours.rows}.values()
    titles = titles_of(ours.rows)
    facts = {
        "Models": ", ".join(f"{model.name} {model.digest}" for model in models),
        "Tasks": ", ".join(titles[task] for task in _tasks(ours)),
        "Runs": f"{len(results)}, seeds {_listed({result.seed for result in results})}",
        "Data": ", ".join(sorted({_data(result) for result in results})),
        "Newest result": _minute(finished[-1]),
        "Oldest result": _minute(finished[0]),
        "Machine": "; ".join(sorted({_machine(result) for result in results})),
        "Versions": _versions(results),
    }
    return {name: one_line(text) for name, text in facts.items() if text}


def _not_counted(ours: OurResults, of_students: Sequence[Invalid]) -> str:
    """Return the number of files that tables' notes list, and the students' files by name."""
    count = sum(map(len, (ours.invalid, ours.speeds.invalid, ours.probed.invalid)))
    parts = [f"{count} file{'s' if count > 1 else ''}: see the tables' notes"] if count else []
    return one_line("; ".join([*parts, *map(str, of_students)]))


def _tasks(ours: OurResults) -> list[str]:
    """Return the tasks in the tables' order; a second cell of a task is not one of its own."""
    present = {result.task for row in ours.rows for result in row.results}
    return [task for task in tasks_in_order(ours.rows) if task in present]


def _listed(seeds: Collection[int]) -> str:
    """Return `1 to 5`, or every seed if some are missing in between."""
    ordered = sorted(seeds)
    if len(ordered) > 2 and ordered[-1] - ordered[0] == len(ordered) - 1:
        return f"{ordered[0]} to {ordered[-1]}"
    return ", ".join(map(str, ordered))


def _data(result: TaskResult) -> str:
    """Return where data are from; of files no paths, which mean little on another machine."""
    if name := result.data.get("name"):
        return f"stand-in data: {name}; no score here is about the real tasks"
    if result.data.get("revision") is None:
        return "files (see the tables' notes)"
    return f"{result.data.get('source')} of the Hub"


def _minute(finished: str) -> str:
    """Return `2026-01-05 14:03 UTC` for ISO 8601; anything else unchanged."""
    try:
        moment = datetime.fromisoformat(finished)
    except ValueError:
        return finished
    return f"{moment:%Y-%m-%d %H:%M} {moment.tzname() or ''}".strip()


def _machine(result: TaskResult) -> str:
    """Return the machine as far as the record has it: old or foreign ones may lack any part."""
    provenance = result.provenance
    machine = provenance.get("machine")
    known = machine if isinstance(machine, Mapping) else {}
    cores = f"{known['cores']} cores" if "cores" in known else None
    threads = f"{provenance.get('device', '?')} x {provenance.get('threads', '?')} threads"
    parts = (known.get("processor"), cores, known.get("system"), threads)
    return ", ".join(str(part) for part in parts if part)


def _versions(results: Sequence[TaskResult]) -> str:
    """Return each library's version, or all its versions where results differ."""
    found: dict[str, set[str]] = defaultdict(set)
    for result in results:
        found["angels-share"].add(str(result.provenance.get("version", "?")))
        for name, version in result.provenance.get("libraries", {}).items():
            found[name].add(version)
    return ", ".join(f"{name} {' and '.join(sorted(each))}" for name, each in found.items())
