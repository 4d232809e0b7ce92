"""The harness from Python: evaluate models, load results, tabulate and compare them.

    from eval_harness.api import compare, evaluate, load_results, tables

    results = evaluate("distilbert", ["rte", "mrpc"], seeds=5)    # fine-tunes; saved in results/
    results.to_pandas()                                           # a line per run
    results.medians()                                             # a line per model
    everything = load_results("results")                          # also of the command line's runs
    print(tables(everything)["table1"])
    print(compare(everything["bert"], everything["distilbert"]))  # differences with intervals

`evaluate` does what `run_glue.py` and `run_squad_distill.py` do, with the same flags as keywords,
the same files, and the same numbers: what has a result is not run again, and a call that was
interrupted continues where it was. Runs are done in worker processes, so a script needs no
`if __name__ == "__main__":`, and a notebook's kernel keeps its memory. Importing this module
imports no torch.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from angels_share.cli import Command
from angels_share.errors import RunFailed, UserError
from angels_share.flags import Options
from angels_share.hardware import limit_spinning
from angels_share.hub.push_flags import PUSH_FLAGS
from angels_share.imports import require_extra
from angels_share.names import nearest
from angels_share.sealed_folder import is_whole
from angels_share.training_flags import training_flags
from eval_harness.commands.carry_out import carry_out
from eval_harness.results.record import TaskResult
from eval_harness.results.store import Found, find
from eval_harness.rows.grouping import rows_of
from eval_harness.rows.row import Row
from eval_harness.runs.onnx_files import names_onnx
from eval_harness.sweep.plan import MODELS, Plan
from eval_harness.tables.cells import mean_cell, tasks_with_results, titles_of, to_percent
from eval_harness.tables.compared import Comparison, Entry, compare_rows, entry_named
from eval_harness.tables.formats import FORMATS
from eval_harness.tables.paper import load_paper
from eval_harness.tables.write import load_results as load_rows
from eval_harness.tables.write import make_tables
from eval_harness.tasks.custom import make_task
from eval_harness.tasks.lookup import tasks_named
from eval_harness.tasks.perplexity import is_of_perplexity
from eval_harness.tasks.registry import TASKS, Task

if TYPE_CHECKING:
    import pandas as pd

    from eval_harness.report.panels import Chart

__all__ = [
    "Comparison",
    "Results",
    "RunFailed",
    "Task",
    "TaskResult",
    "UserError",
    "chart",
    "compare",
    "custom_task",
    "evaluate",
    "load_results",
    "tables",
]


@dataclass(frozen=True, repr=False)
class Results:
    """Results of a results folder, or of a part of it.

    `results["distilbert"]` is the part of one row of the tables: by the row's label, or by the
    model's name, Hub id or folder where the model has one row only. Iterating yields each
    `TaskResult`, with settings, provenance and scores.

    Attributes:
        root: the results folder.
        found: the results by their keys, and the files in the folder that don't count.
        row: the row that was taken out of more, with its name among these; None for all rows.
    """

    root: Path
    found: Found = field(default_factory=Found)
    row: Row | None = None

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The rows of the tables: a model under settings, with a cell for each task."""
        return tuple(rows_of(self.found)) if self.row is None else (self.row,)

    @property
    def labels(self) -> list[str]:
        """The whole names of the rows; tables shorten long ones, and explain them in a note."""
        return [row.label for row in self.rows]

    @property
    def invalid(self) -> tuple[str, ...]:
        """The files in the folder that don't count, each with the reason."""
        return tuple(map(str, self.found.invalid))

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self.found.by_key)

    def __iter__(self) -> Iterator[TaskResult]:
        """Yield the result of each run."""
        return iter(self.found.results)

    def __getitem__(self, name: str) -> "Results":
        """Return the results of one row.

        Raises:
            UserError: no row has this name, or several have; the error lists them.
        """
        row = entry_named(name, self.rows, self.root).row
        keys = {result.key for result in row.results}
        return Results(self.root, _only(self.found, keys), row)

    def to_pandas(self) -> "pd.DataFrame":
        """Return a data frame with a line per run; scores and metrics are in percent.

        Perplexities, whose metrics say so, are as they are.

        Columns: `row` (its whole label), `model`, `task`, `seed`, `score`, each metric of the split
        that the score is of, `examples` in training, `seconds` of training, `marks` (caveats),
        `finished`, `key` (where the file is below `runs/`).
        """
        import pandas as pd  # here: it takes half a second

        lines = [
            _line(row, result) for row in self.rows for result in _of_row(row, self.found.by_key)
        ]
        metrics = [name for line in lines for name in line if name not in (*_FIRST, *_LAST)]
        return pd.DataFrame(lines, columns=[*_FIRST, *dict.fromkeys(metrics), *_LAST])

    def medians(self) -> "pd.DataFrame":
        """Return a data frame with a line per row of the tables, and a column per task.

        The numbers are medians over seeds, in percent; the last column is their mean, where a row
        has all tasks.
        """
        import pandas as pd

        tasks = tasks_with_results(self.rows)
        lines = {row.label: _medians(row, tasks) for row in self.rows}
        titles = titles_of(self.rows)
        columns = [*(titles[task] for task in tasks), *(["mean"] if len(tasks) > 1 else [])]
        return pd.DataFrame.from_dict(lines, orient="index", columns=columns)

    def saved_models(self) -> dict[str, Path]:
        """Return the folders of the fine-tuned models that were saved, by their results' keys."""
        places = {key: self.root / MODELS / key for key in self.found.by_key}
        return {key: place for key, place in places.items() if is_whole(place)}

    def __repr__(self) -> str:
        """Return the medians as text, below the number of runs."""
        count = f"{len(self)} run{'' if len(self) == 1 else 's'} in {self.root}"
        if not self.rows:
            return f"Results: {count}"
        if not any(row.cells for row in self.rows):
            return f"Results: {count}; perplexities: `to_pandas()` has them"
        return f"Results: {count}; medians in percent:\n{self.medians().to_string(**_SHOWN)}"

    def _repr_html_(self) -> str:
        """Return the medians as a notebook shows them."""
        shown: str = self.medians().to_html(**_SHOWN)
        return shown


_FIRST = ("row", "model", "task", "seed", "score")
_LAST = ("examples", "seconds", "marks", "finished", "key")
_SHOWN: Mapping[str, Any] = {"float_format": "{:.1f}".format, "na_rep": ""}


def _only(found: Found, keys: set[str]) -> Found:
    return Found({key: result for key, result in found.by_key.items() if key in keys})


def _of_row(row: Row, by_key: Mapping[str, TaskResult]) -> list[TaskResult]:
    """Return a row's results, each once: MNLI's and SQuAD's are in two cells."""
    keys = dict.fromkeys(result.key for result in row.results)
    return [by_key[key] for key in keys]


def _line(row: Row, result: TaskResult) -> dict[str, Any]:
    said = _as_it_is if any(map(is_of_perplexity, result.scores.values())) else _percent
    return {
        "row": row.label,
        "model": result.model.name,
        "task": result.task,
        "seed": result.seed,
        "score": said(result.score),
        **{name: said(value) for name, value in _measured(result).items()},
        "examples": result.data.get("examples", {}).get("train"),
        "seconds": result.times.get("train"),
        "marks": "; ".join(result.marks),
        "finished": result.finished,
        "key": result.key,
    }


def _measured(result: TaskResult) -> dict[str, float | None]:
    """Return the metrics of the split that the score is of; the splits' scores if it's a mean."""
    if any(task.averages for task in TASKS if task.name == result.task):
        return {split: of_split.get("score") for split, of_split in result.scores.items()}
    splits = list(result.scores.values())
    scored = next((each for each in splits if each.get("score") == result.score), splits[0])
    return {name: value for name, value in scored.items() if name != "score"}


def _percent(share: float | None) -> float | None:
    return None if share is None else to_percent(share)


def _as_it_is(number: float | None) -> float | None:
    return number


def _medians(row: Row, tasks: Sequence[str]) -> list[float | None]:
    medians = [_percent(row.cells[task].median) if task in row.cells else None for task in tasks]
    if len(tasks) < 2:
        return medians
    mean = None if None in medians else mean_cell(row, tasks)
    return [*medians, mean.number if mean else None]


_SEEDS = 5


def evaluate(
    model: str | Path | Iterable[str | Path],
    tasks: str | Path | Task | Iterable[str | Path | Task] = "all",
    *,
    seeds: int | Iterable[int] = _SEEDS,
    results_dir: str | Path = "results",
    data_dir: str | Path | None = None,
    teacher: str | Path | None = None,
    transfer_set: str | Path | Iterable[str | Path] | None = None,
    limit: int | None = None,
    workers: int | None = None,
    save_models: Literal["none", "best", "all"] = "none",
    rerun: Literal["missing", "always", "never"] = "missing",
    **flags: Any,
) -> Results:
    """Fine-tune models on tasks over several seeds, and return the results.

    What has a result already is not run again. The tables in `results_dir` are written as by the
    commands.

    Args:
        model: short names, folders or Hub ids of the models to fine-tune; or ONNX files, which
            are evaluated as they are.
        tasks: names of tasks, `all` for the nine of GLUE, `squad`, YAML files, or
            tasks that `custom_task` made.
        seeds: how many seeds, counted from 1, or a list of them; one run with `eval_only`.
        results_dir: the folder that results are read from and saved to.
        data_dir: the folder of GLUE's own TSVs, or of parquet, csv or json [the Hub]; SQuAD's files
            are given by `train_file` and `validation_file`.
        teacher: the model to distil from while fine-tuning.
        transfer_set: files, or a data set on the Hub, of texts without labels, on which only the
            teacher's soft targets are learned; needs `teacher`, and is not for questions.
        limit: the maximum number of examples per training and evaluation split.
        workers: worker processes, each doing one run at a time [one per GPU, else 1].
        save_models: which fine-tuned models to save below `results_dir`: none, `best` (that of the
            seed nearest the median), or all; `saved_models()` of the results says where they are.
        rerun: do runs without a result (`missing`), all (`always`), or none (`never`).
        flags: further flags of `run_glue.py` and `run_squad_distill.py`, such as
            `learning_rate=5e-5`, `num_train_epochs=4`, `temperature=3` or `eval_only=True`.

    Returns:
        The results of exactly these models, tasks, seeds and settings.

    Raises:
        UserError: bad input, in one line; nothing was run.
        RunFailed: a run failed; the results of the others are saved.

    Example:
        >>> evaluate("distilbert", "rte", seeds=3, learning_rate=5e-5).medians()  # doctest: +SKIP
    """
    # A model that is evaluated as it is has one run: the default number of seeds asks for nothing.
    models = [model] if isinstance(model, str | Path) else list(model)
    is_as_it_is = flags.get("eval_only") or all(names_onnx(str(each)) for each in models)
    has_seeds = not (is_as_it_is and seeds == _SEEDS)
    given = {
        **(_seeds(seeds) if has_seeds else {}),
        "model": models,
        "results_dir": results_dir,
        "data_dir": data_dir,
        "teacher": teacher,
        "transfer_set": [transfer_set] if isinstance(transfer_set, str | Path) else transfer_set,
        "limit": limit,
        "workers": workers,
        "save_models": save_models,
        "rerun": rerun,
        **flags,
    }
    required = ("model", "results_dir", "num_seeds", "seeds")
    chosen = {
        name: _plain(value)
        for name, value in given.items()
        if value is not None or name in required
    }
    limit_spinning()  # of the workers' threads, as the commands do
    keys: set[str] = set()
    by_command: dict[str, list[Task]] = {}
    for task in _tasks(tasks):
        by_command.setdefault(task.kind.command, []).append(task)
    try:
        optional = {"data_dir": data_dir, "transfer_set": transfer_set}
        used = {name: value for name, value in optional.items() if value}
        _refuse_unused({**flags, **used}, by_command)
        # All are planned before any is carried out: bad input must not show after hours.
        plans = [
            each
            for command, of_command in by_command.items()
            for each in _plans(command, of_command, chosen)
        ]
        for planned, options in plans:
            keys |= _carry_out(planned, options)
    except UserError as error:
        raise UserError(re.sub(r"--(?=\w)", "", str(error))) from error
    root = Path(results_dir).expanduser()
    return Results(root, _only(find(root), keys))


def _seeds(seeds: int | Iterable[int]) -> dict[str, Any]:
    plain = _plain(seeds)
    return {"seeds": plain} if isinstance(plain, list) else {"num_seeds": plain}


def _plain(value: Any) -> Any:
    """Return a value as a `--config` file would have it: no numpy numbers, arrays or generators."""
    if isinstance(value, str | Mapping) or value is None:
        return value
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Iterable) and not isinstance(value, Path):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _tasks(tasks: str | Path | Task | Iterable[str | Path | Task]) -> list[Task]:
    several = [tasks] if isinstance(tasks, str | Path | Task) else list(tasks)
    found: dict[str, Task] = {}
    for each in several:
        for task in [each] if isinstance(each, Task) else tasks_named([str(each)]):
            if found.setdefault(task.name, task) != task:
                raise UserError(f"two tasks are called {task.name!r}: rename one")
    if not found:
        raise UserError("tasks: name one or more")
    return list(found.values())


_MODULES = {"run_glue": "glue", "run_squad_distill": "squad"}
_ELSEWHERE = {
    **{flag.name: "push afterwards: python -m eval_harness push" for flag in PUSH_FLAGS},
    "dry_run": "use the command line",
    "num_seeds": "use seeds",
    "predict_test": "use run_glue.py --predict_test, which writes the files for GLUE's server",
    "version_2_with_negative": "name the task squad_v2",
}


def _module_of(command: str) -> Any:
    return import_module(f"eval_harness.commands.{_MODULES[command]}")


def _refuse_unused(given: Mapping[str, Any], commands: Iterable[str]) -> None:
    """Refuse a keyword that no task here has a use for, or that is for the command line."""
    found: list[Command] = [_module_of(command).COMMAND for command in commands]
    known = {flag.name for each in found for flag in each.flags}
    for name in given:
        if name in _ELSEWHERE:
            raise UserError(f"{name}: {_ELSEWHERE[name]}")
        if name in known:
            continue
        reasons = [each.refusal(name) for each in found]
        if None not in reasons:
            raise UserError(f"{name} is not accepted: {reasons[0]}")
        if name not in training_flags():
            raise UserError(f"unknown keyword {name!r}{nearest(name, known)}")


def _plans(
    command: str, tasks: Sequence[Task], given: Mapping[str, Any]
) -> list[tuple[Plan, Options]]:
    """Return what a command would do, all of its input checked."""
    module = _module_of(command)
    known = {flag.name for flag in module.COMMAND.flags} | training_flags().keys()
    own = {name: value for name, value in given.items() if name in known}
    options = module.COMMAND.options(own)
    return [(planned, options) for planned in module.plans(options, tasks)]


def _carry_out(planned: Plan, options: Options) -> set[str]:
    """Do the runs of a plan; return the keys of those that have a result now."""
    outcome = carry_out(planned, options, ()).outcome
    if outcome.failed:
        raise RunFailed("; ".join(outcome.summary()))
    return {run.key for run in (*outcome.done, *outcome.skipped)}


def load_results(results_dir: str | Path = "results") -> Results:
    """Return all results of a results folder.

    Files that aren't valid results don't count; `invalid` names them.

    Args:
        results_dir: the folder.

    Raises:
        UserError: there is no such folder.
    """
    root = Path(results_dir).expanduser()
    if not root.is_dir():
        raise UserError(f"results_dir {root}: not a folder; name one that has results")
    return Results(root, find(root))


def tables(
    results: Results, form: Literal["markdown", "csv", "json", "latex"] = "markdown"
) -> dict[str, str]:
    """Return the paper's tables with these results in them, by name: `table1`, `table2`, ...

    Tables 0 and 3 show what `probe` and `speed` measured in the same results folder. Nothing is
    written but intervals, which are cached in the results folder.

    Args:
        results: the results.
        form: the format of the tables.
    """
    if form not in FORMATS:
        raise UserError(
            f"form {form!r}: expected one of {', '.join(FORMATS)}{nearest(form, FORMATS)}"
        )
    ours = load_rows(results.found, results.root)
    return {table.name: FORMATS[form].write(table) for table in make_tables(load_paper(), ours)}


def compare(
    a: Results, b: Results, *others: Results, tasks: str | Task | Iterable[str | Task] | None = None
) -> Comparison:
    """Compare models on the tasks that all of them have results of.

    Printing the comparison shows medians, differences from `a` with 95 % intervals over examples
    and seeds, and which of them are significant; `to_pandas()` has the same as numbers.

    Args:
        a: the results of the model that the others are compared with: one row, such as
            `results["bert"]`.
        b: those of another model, perhaps of another folder.
        others: those of further models.
        tasks: names of the tasks to compare on [all].

    Raises:
        UserError: results of several rows, or nothing that can be compared.
    """
    names: list[str] | None = None
    if tasks is not None:
        wanted = [tasks] if isinstance(tasks, str | Task) else tasks
        names = [each.name if isinstance(each, Task) else each for each in wanted]
    return compare_rows([_entry(results) for results in (a, b, *others)], names)


def _entry(results: Results) -> Entry:
    if not isinstance(results, Results):
        raise UserError(f'compare takes results, such as load_results()["bert"], not {results!r}')
    if len(results.rows) != 1:
        listed = ", ".join(f'results["{label}"]' for label in results.labels)
        raise UserError(
            f"compare needs results of one row each, not of {len(results.rows)}"
            + (f": choose one, such as {listed}" if listed else "")
        )
    (row,) = results.rows
    return Entry(row.short, row, results.root)


def chart(comparison: Comparison) -> "Chart":
    """Draw a comparison: every difference with its interval; a notebook shows the chart.

    Its `svg` and `png` are the chart as files. Needs matplotlib.
    """
    require_extra("matplotlib", "report", "a chart")
    from eval_harness.report.comparison_chart import comparison_chart

    return comparison_chart(comparison)


def custom_task(
    name: str,
    *,
    columns: Sequence[str],
    primary: Sequence[str] | None = None,
    files: Mapping[str, str | Path] | None = None,
    hub: str | None = None,
    labels: Sequence[str] | None = None,
    scale: Sequence[float] | None = None,
    **keys: Any,
) -> Task:
    """Return a task of your own, for `evaluate`: what a YAML file defines for the command line.

    Args:
        name: its name in results.
        columns: one text column, or two; of tagged words (`kind="tokens"`) those of words and tags.
        primary: the metrics whose mean is the score: `accuracy`, `f1`, `f1_macro`, `f1_micro`,
            `matthews`; for a regression `pearson`, `spearman`; of tagged words `entity_f1`, which
            may be left out, or `strict_f1`.
        files: the paths of the splits, `train` and `validation`: .parquet, .csv, .tsv, .json or
            .jsonl, each with the columns and one called `label`; of tagged words also .conll, .txt.
        hub: a data set on the Hub, instead of `files`.
        labels: the classes in the order of their ids.
        scale: the lowest and the highest label of a regression, instead of `labels`.
        keys: further keys: `title`, `also`, `label_column`, `evaluation`, `config`, `version`,
            `kind`, `encoding`, `headings`.

    Raises:
        UserError: names the key that is unknown, missing or wrong.
    """
    paths = None if files is None else {split: str(path) for split, path in files.items()}
    given = {
        "name": name,
        "columns": columns,
        "primary": primary,
        "files": paths,
        "hub": hub,
        "labels": labels,
        "scale": scale,
        **keys,
    }
    return make_task({key: _plain(value) for key, value in given.items()})
