"""The results as one HTML page and as pictures: a function of files. Imports no torch.

python -m eval_harness report --students my-distil
"""

import shlex
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from angels_share.errors import UserError
from angels_share.files import write_atomically
from eval_harness.report.chart_data import losses_of, places_of, seeds_of, shares_of
from eval_harness.report.html import Content, Missing, page
from eval_harness.report.training_curves import Curve, training_of
from eval_harness.results.record import TaskResult
from eval_harness.results.store import Invalid, find
from eval_harness.tables.cells import columns_of, title_of
from eval_harness.tables.paper import load_paper
from eval_harness.tables.row_labels import one_line
from eval_harness.tables.table2 import TASKS_OF_TABLE2
from eval_harness.tables.write import Ours, measured, tables

if TYPE_CHECKING:
    from eval_harness.report.panels import Picture

PAGE = "report.html"
FIGURES = "figures"


def write_report(root: Path | str, students: Sequence[Path | str] = ()) -> list[str]:
    """Writes the page and its figures into a results folder.

    The same files under the same names give the same bytes.

    Args:
        root: the results folder.
        students: folders of students, for their training curves.

    Returns:
        A line for the page; one for the figures, for what was removed, and for what doesn't count,
        where there is such.

    Raises:
        UserError: there is no matplotlib, no such folder, or no student in one.
    """
    _require_matplotlib()
    folder, training = Path(root).expanduser(), training_of(students)
    if not folder.is_dir():
        raise UserError(
            f"--results_dir {folder}: is no folder: name the one that holds results; {_JUDGE} "
            "makes some"
        )
    paper, ours = load_paper(), measured(find(folder), folder)
    figures, missing = _pictures(paper, ours, folder, training.curves)
    left_out, made_with = _not_counted(ours, training.odd), _command(folder, students)
    content = Content(
        _title(ours),
        {**_facts(ours), **({"Not counted": left_out} if left_out else {})},
        ours.lines,
        figures,
        missing,
        tables(paper, ours),
        made_with,
    )
    written = write_atomically(folder / PAGE, page(content))
    said = [str(written), *_write_figures(folder / FIGURES, figures, missing)]
    return [*said, *([f"not counted: {left_out}"] if left_out else [])]


def _command(root: Path, students: Sequence[Path | str]) -> str:
    words = ["python", "-m", "eval_harness", "report", "--results_dir", str(root)]
    return shlex.join([*words, *(["--students", *map(str, students)] if students else [])])


def _write_figures(
    folder: Path, figures: Sequence["Picture"], missing: Sequence[Missing]
) -> list[str]:
    """Those that there are; one that there is no data for doesn't stay behind. Says so."""
    from eval_harness.report.svg import alone

    for each in figures:
        write_atomically(folder / f"{each.name}.svg", alone(each.svg))
        write_atomically(folder / f"{each.name}.png", each.png)
    count = f"{len(figures)} figure{'s' if len(figures) > 1 else ''}"
    said = [f"{folder}: {count}, as SVG and PNG"] if figures else []
    for gone in missing:
        files = [folder / f"{gone.name}{ending}" for ending in (".svg", ".png")]
        there = [path for path in files if path.exists()]
        for path in there:
            path.unlink()
        if there:
            names = " and ".join(path.name for path in there)
            said.append(
                f"{folder}: removed {names}: there is no data for it now; {gone.command} makes some"
            )
    return said


def _require_matplotlib() -> None:
    """It is an extra: who only wants tables needn't have it."""
    if find_spec("matplotlib") is None:
        raise UserError(
            "the report's figures want matplotlib, which isn't installed: "
            "pip install 'angels-share[report]'"
        )


_JUDGE = "python run_glue.py --model bert distilbert"
_TIME = "python -m eval_harness speed --model bert distilbert"
_STUDY = "make study TEACHER=bert CORPUS=wiki.txt DATA=glue_data OUT=study"
_CURVES = "python -m eval_harness report --students my-distil"


def _pictures(
    paper: Mapping[str, Any], ours: Ours, folder: Path, curves: Sequence[Curve]
) -> tuple[list["Picture"], list[Missing]]:
    """The figures that there are data for, and what would make those of the others."""
    from eval_harness.report import charts as draw
    from eval_harness.report.panels import marks_of

    marks = marks_of([*(row.label for row in ours.rows), *(each.student for each in curves)])
    places = places_of(paper, ours.rows, ours.speeds)
    shares, seeds = shares_of(ours.lines, folder), seeds_of(ours.rows)
    losses = losses_of(ours.changes)
    every: list[tuple[bool, Callable[[], Picture], Missing]] = [
        (
            places.has_ours,
            lambda: draw.score_against_cost(places, marks),
            Missing(
                "score-against-cost", "Score against size and speed", _TIME if seeds else _JUDGE
            ),
        ),
        (
            bool(shares),
            lambda: draw.retained_by_task(shares, marks),
            Missing("retained-by-task", "What was retained, task by task", _JUDGE),
        ),
        (
            bool(seeds),
            lambda: draw.seeds_by_task(seeds, marks),
            Missing("seeds-by-task", "Seeds, one by one", _JUDGE),
        ),
        (
            bool(losses),
            lambda: draw.ablation(losses, paper["table4"]["rows"]),
            Missing("ablation", "What each part of the loss is worth", _STUDY),
        ),
        (
            bool(curves),
            lambda: draw.training_curves(curves, marks),
            Missing("training-curves", "Training, part by part", _CURVES),
        ),
    ]
    drawn = [make() for there, make, _ in every if there]
    return drawn, [missing for there, _, missing in every if not there]


def _title(ours: Ours) -> str:
    names = list(dict.fromkeys(row.model.name for row in ours.rows))
    if not names:
        return "Angel's Share"
    listed = ", ".join(names) if len(names) <= _NAMED else f"{len(names)} models"
    results = [result for row in ours.rows for result in row.results]
    made_up = sorted({str(result.data["name"]) for result in results if "name" in result.data})
    return one_line(f"Angel's Share: {listed}{', on ' if made_up else ''}{' and '.join(made_up)}")


_NAMED = 3


def _facts(ours: Ours) -> dict[str, str]:
    """What the page is of: models, tasks, when, where, with what."""
    results = list({result.key: result for row in ours.rows for result in row.results}.values())
    if not results:
        return {"Results": f"none yet; {_JUDGE} makes some"}
    finished = sorted(result.finished for result in results)
    models = {row.model.key: row.model for row in ours.rows}.values()
    said = {
        "Models": ", ".join(f"{model.name} {model.digest}" for model in models),
        "Tasks": ", ".join(map(title_of, _tasks(ours))),
        "Runs": f"{len(results)}, seeds {_listed({result.seed for result in results})}",
        "Data": ", ".join(sorted({_data(result) for result in results})),
        "Newest result": _moment(finished[-1]),
        "Oldest result": _moment(finished[0]),
        "Machine": "; ".join(sorted({_machine(result) for result in results})),
        "Versions": _versions(results),
    }
    return {name: one_line(text) for name, text in said.items() if text}


def _not_counted(ours: Ours, odd: Sequence[Invalid]) -> str:
    """How many files the tables' notes name; and those of students, which no table names."""
    files = len(ours.invalid) + len(ours.speeds.invalid)
    noted = f"{files} file{'s' if files > 1 else ''}: the tables' notes say which"
    return one_line("; ".join([*([noted] if files else []), *map(str, odd)]))


def _tasks(ours: Ours) -> list[str]:
    """In the tables' order; a second part of a task is none of its own."""
    there = {result.task for row in ours.rows for result in row.results}
    order = [*columns_of(ours.rows), *TASKS_OF_TABLE2]
    return [task for task in order if task in there]


def _listed(seeds: Collection[int]) -> str:
    """`1 to 5`, or each."""
    ordered = sorted(seeds)
    if len(ordered) > 2 and ordered[-1] - ordered[0] == len(ordered) - 1:  # none left out
        return f"{ordered[0]} to {ordered[-1]}"
    return ", ".join(map(str, ordered))


def _data(result: TaskResult) -> str:
    """Paths say little on another machine: the tables' notes tell files by their content."""
    if name := result.data.get("name"):
        return f"stand-in data: {name}"
    if result.data.get("revision") is None:
        return "files (the tables' notes say which)"
    return f"{result.data.get('source')} of the Hub"


def _moment(finished: str) -> str:
    """`2026-01-05 14:03 UTC` of ISO 8601; what is something else stays what it is."""
    try:
        moment = datetime.fromisoformat(finished)
    except ValueError:
        return finished
    return f"{moment:%Y-%m-%d %H:%M} {moment.tzname() or ''}".strip()


def _machine(result: TaskResult) -> str:
    """What a record says of it; of an old or a foreign one perhaps nothing."""
    made = result.provenance
    machine = made.get("machine")
    known = machine if isinstance(machine, Mapping) else {}
    cores = f"{known['cores']} cores" if "cores" in known else None
    threads = f"{made.get('device', '?')} x {made.get('threads', '?')} threads"
    parts = (known.get("processor"), cores, known.get("system"), threads)
    return ", ".join(str(part) for part in parts if part)


def _versions(results: Sequence[TaskResult]) -> str:
    """Each library's, all of them where results differ."""
    found: dict[str, set[str]] = defaultdict(set)
    for result in results:
        found["angels-share"].add(str(result.provenance.get("version", "?")))
        for name, version in result.provenance.get("libraries", {}).items():
            found[name].add(version)
    return ", ".join(f"{name} {' and '.join(sorted(each))}" for name, each in found.items())
