"""`python -m eval_harness lineage`: from a teacher to what runs at the edge, step by step.

python -m eval_harness lineage my-sst2 smaller smaller/onnx/model_quantized.onnx
"""

from pathlib import Path
from typing import Any

from angels_share.cli import DONE, Command
from angels_share.errors import UserError
from angels_share.files import sha256_of_file
from angels_share.flags import Flag, Options
from angels_share.model_files import WEIGHTS, weights_in
from angels_share.student_record import EXPORTED, FINE_TUNED, LINEAGE, PRUNED, read_record
from eval_harness.results.lineages import Generation, Line, Lines, write_line
from eval_harness.results.speed import find_speeds
from eval_harness.results.store import find
from eval_harness.rows.grouping import rows_of
from eval_harness.rows.row import Row
from eval_harness.tables.cells import tasks_with_results
from eval_harness.tables.compared import entry_named
from eval_harness.tables.edge import edge_tables, find_edges
from eval_harness.tables.formats import FORMATS


def run(options: Options) -> int:
    """Note a line of models in the results folder, and print its table.

    Raises:
        UserError: a model has no results, or they have no task in common.
    """
    root = Path(options.results_dir).expanduser()
    if not root.is_dir():
        raise UserError(f"--results_dir {root}: not a folder; name one that has results")
    if options.labels and len(options.labels) != len(options.models):
        raise UserError(
            f"--labels {' '.join(options.labels)}: {len(options.labels)} labels for "
            f"{len(options.models)} models"
        )
    if len(set(options.models)) < max(len(options.models), 2):
        raise UserError(f"{' '.join(options.models)}: name two models or more, each once")
    rows = rows_of(find(root), pooled=False)
    entries = [entry_named(name, rows, root, options.tasks or ()) for name in options.models]
    tasks = _tasks(options, [entry.row for entry in entries])
    labels = options.labels or [entry.label for entry in entries]
    generations: list[Generation] = []
    for name, entry, label in zip(options.models, entries, labels, strict=True):
        before = generations[-1].sha256 if generations else None
        generations.append(_generation(name, entry.row, label, before))
    line = Line(tuple(generations), tuple(tasks))
    write_line(root, line)
    edges = find_edges(Lines((line,)), rows, find_speeds(root).sessions, root)
    (table,) = edge_tables(edges, ())
    print(FORMATS[options.format].write(table), end="")  # noqa: T201
    return DONE


def _tasks(options: Options, rows: list[Row]) -> list[str]:
    """Return the tasks that are named, or all that every model has results of."""
    known = tasks_with_results(rows)
    common = [task for task in known if all(task in row.cells for row in rows)]
    for name in options.tasks or ():
        if name not in common:
            raise UserError(
                f"--tasks {name}: not every model has results on it; they share "
                f"{', '.join(common) or 'none'}"
            )
    if not common:
        raise UserError(
            "these models have no task in common: evaluate each with --eval_only on the same one"
        )
    return list(options.tasks or common)


def _generation(name: str, row: Row, label: str, before: str | None) -> Generation:
    """Return what is on disk of a model, and how its record says that it was made.

    Args:
        name: the model, as it was given.
        row: its row of results.
        label: what the table calls it.
        before: the hash of the model before it in the line.

    Raises:
        UserError: its weights are not those that were evaluated.
    """
    place = Path(name).expanduser().resolve()
    if not place.exists():
        place = Path(row.model.source)
    if place.is_file():
        folder = place.parent.parent
        file, parameters = place, None
    else:
        folder, file, parameters = place, place / WEIGHTS, None
    found = file.is_file()
    sha256 = sha256_of_file(file) if found else None
    if sha256 and row.model.weights and sha256 != row.model.weights:
        raise UserError(
            f"{name}: {file.name} is not what was evaluated: evaluate it with --eval_only, or "
            "name the model that was"
        )
    what = " and ".join(map(_words, _steps_since(before, folder, sha256)))
    if not row.settings.get("eval_only"):  # its own weights are in no folder, or in another one
        sha256, what = None, _words_of(row)
    if found and file.name == WEIGHTS:
        parameters = sum(count for _, count in weights_in(file))
    return Generation(
        label=label,
        row=row.label,
        key=row.model.key,
        what=what,
        sha256=sha256,
        bytes=file.stat().st_size if found else None,
        parameters=parameters,
    )


def _steps_since(before: str | None, folder: Path, sha256: str | None) -> list[dict[str, Any]]:
    """Return the steps from the model before to a file of this content, as its record has them.

    Where the record doesn't know the model before, it is the last step alone.
    """
    steps = read_record(folder).get(LINEAGE, []) if folder.is_dir() else []
    chain: list[dict[str, Any]] = []
    wanted = sha256
    while wanted is not None and wanted != before:
        made = [step for step in steps if step.get("sha256") == wanted]
        if not made or made[-1] in chain:
            return chain[-1:]
        chain.insert(0, made[-1])
        wanted = (made[-1].get("from") or {}).get("sha256")
    return chain if wanted == before else chain[-1:]


def _words_of(row: Row) -> str:
    """Return how a row's models were made, which were fine-tuned for it."""
    (task, *more) = (*row.cells, *row.perplexities)
    taught = " by a teacher" if row.settings.get("method") else ""
    return f"fine-tuned on {'each task' if more else task}{taught}"


def _words(step: dict[str, Any]) -> str:
    """Return how a step made its file, in a few words."""
    settings = step.get("settings") or {}
    if step["what"] == FINE_TUNED:
        taught = " by its teacher" if settings.get("method") else ""
        return f"fine-tuned on {settings.get('task', 'a task not recorded')}{taught}"
    if step["what"] == PRUNED:
        return f"cut by {' and '.join(map(str, settings.get('scores', [])))}"
    if step["what"] == EXPORTED:
        return f"ONNX, {settings.get('precision', 'precision not recorded')}"
    return str(step["what"])


COMMAND = Command(
    name="eval_harness lineage",
    summary="shows models that were made from one another: score, size and time at each step",
    flags=(
        Flag(
            "models",
            "models with results, from the teacher on: folders, exported files, or as tables name "
            "their rows",
            many=True,
            required=True,
            first=True,
        ),
        Flag("labels", "what the table calls them, one each [their rows' names]", many=True),
        Flag("tasks", "tasks to show [all that every model has results of]", many=True),
        Flag("results_dir", "folder that results are read from", default="results"),
        Flag("format", "output format", default="markdown", choices=tuple(FORMATS)),
    ),
    run=run,
    examples=(
        "python -m eval_harness lineage my-sst2 smaller smaller/onnx/model_quantized.onnx",
        "python -m eval_harness lineage my-sst2 smaller --labels teacher cut --tasks sst2",
    ),
)
