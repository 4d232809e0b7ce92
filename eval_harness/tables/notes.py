"""Notes under a table: what a reader must know about the cells of our rows, each said once."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import eq

from eval_harness.results.record import TaskResult, texts_added
from eval_harness.rows.labels import format_setting
from eval_harness.rows.row import Cell, Row
from eval_harness.runs.settings import FINE_TUNING
from eval_harness.tables.cells import titles_of
from eval_harness.tables.table import STAND_IN
from eval_harness.tasks.kinds import PERPLEXITY
from eval_harness.tasks.registry import MISMATCHED, TASKS


@dataclass(frozen=True)
class _ShownCell:
    """A cell with its row and column."""

    row: Row
    task: str
    cell: Cell
    title: str

    def hyper_parameters(self) -> dict[str, str]:
        """Return the hyper-parameters that neither the row's label nor a column names."""
        values = self.cell.results[0].settings.task.get("values", {})
        return {
            name: format_setting(value)
            for name, value in values.items()
            if name not in (*self.row.flags_in_label, *PERPLEXITY.lengths)
        }


_EVALUATED_ON_TEST = {task.name for task in TASKS if task.evaluation[0] == "test"}

_Fact = tuple[_ShownCell, str]


def cell_notes(rows: Sequence[Row], tasks: Sequence[str]) -> list[str]:
    """Return the notes on these rows' cells in the columns of these tasks."""
    titles = titles_of(rows)
    shown = [
        _ShownCell(row, task, row.cells[task], titles[task])
        for task in tasks
        if task != MISMATCHED  # the same runs as MNLI's first cell
        for row in rows
        if task in row.cells
    ]
    return [note for make in _NOTES for note in make(shown)]


def count_notes(rows: Sequence[Row], tasks: Sequence[str]) -> list[str]:
    """Return what n and the brackets mean, where the rows of a table need it."""
    cells = [row.cells[task] for task in tasks for row in rows if task in row.cells]
    scores = [len(cell.counted_scores) for cell in cells]
    parts = []
    if max(scores, default=0) > 1:
        parts.append("n: seeds of fine-tuning; a score is their median (lowest to highest)")
    if any(count < len(cell.expected_seeds) for count, cell in zip(scores, cells, strict=True)):
        parts.append("2/3: only two of the three seeds that were asked for have a score")
    return [f"{'; '.join(parts)}."] if parts else []


def _merged(facts: Iterable[_Fact], shown: Sequence[_ShownCell]) -> str:
    """Return `CoLA 16, STS-B 6`, naming the rows unless a fact holds for all with that task."""
    labels_by_fact: dict[tuple[str, str], list[str]] = defaultdict(list)
    for cell, text in facts:
        labels_by_fact[cell.title, text].append(cell.row.short)
    parts = []
    for (title, text), labels in labels_by_fact.items():
        everyone = [cell.row.short for cell in shown if cell.title == title]
        whose = "" if labels == everyone else f" ({'; '.join(labels)})"
        parts.append(f"{title} {text}{whose}")
    return ", ".join(parts)


_ALWAYS_NAMED = {
    "learning_rate": "learning rate",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch",
    "max_seq_length": "length",
}
_DEFAULTS = {
    name: format_setting(value)
    for values in (*(task.fine_tuning for task in TASKS), FINE_TUNING)
    for name, value in values.items()
}
"""Our defaults; for a setting that only some tasks have (SQuAD's windows), those tasks' default."""


def _hyper_parameters(shown: Sequence[_ShownCell]) -> Iterable[str]:
    """Yield the commonest values of the main four and of any non-default, then the exceptions."""
    cells = [(cell, cell.hyper_parameters()) for cell in shown]
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for cell, values in cells:
        for name, value in values.items():
            # Current rows outvote any number of rows of older results.
            counts[name][value] += 1 if cell.row.variant else len(cells)
    common = {name: of_name.most_common(1)[0][0] for name, of_name in counts.items()}
    if not common:
        return
    order = [*_ALWAYS_NAMED, *sorted(common.keys() - _ALWAYS_NAMED.keys())]
    named = [_named(name, common[name]) for name in order if _is_named(name, common)]
    if not named:  # of models that were evaluated as they are
        return
    # The paper says nothing of custom tasks.
    whose = " (ours: the paper's were never published)" if _are_built_in(shown) else ""
    yield f"Hyper-parameters{whose}: {', '.join(named)}; the rest: `python -m eval_harness tasks`."
    exceptions: dict[str, list[_ShownCell]] = defaultdict(list)
    for cell, values in cells:
        differing = [_named(name, value) for name, value in values.items() if value != common[name]]
        if differing:
            exceptions[", ".join(differing)].append(cell)
    for text, where in exceptions.items():
        yield f"Other hyper-parameters: {_where(where, shown)}: {text}."


def _are_built_in(shown: Sequence[_ShownCell]) -> bool:
    return any(cell.task in _BY_NAME for cell in shown)


def _is_named(name: str, common: Mapping[str, str]) -> bool:
    if name in _ALWAYS_NAMED:
        return name in common
    return common[name] != _DEFAULTS.get(name)


def _named(name: str, value: str) -> str:
    return f"{_ALWAYS_NAMED.get(name, name)} {value}"


def _where(cells: Sequence[_ShownCell], shown: Sequence[_ShownCell]) -> str:
    """Return whole columns, else whole rows, else the tasks of each row."""
    titles = dict.fromkeys(cell.title for cell in cells)
    if len(cells) == sum(cell.title in titles for cell in shown):
        return ", ".join(titles)
    titles_by_row: dict[str, list[str]] = defaultdict(list)
    for cell in cells:
        titles_by_row[cell.row.short].append(cell.title)
    if len(cells) == sum(cell.row.short in titles_by_row for cell in shown):
        return "; ".join(titles_by_row)
    return "; ".join(f"{label} ({', '.join(titles)})" for label, titles in titles_by_row.items())


def _from_files(shown: Sequence[_ShownCell]) -> Iterable[str]:
    """Name the data that are not from the Hub, with the hash of their content.

    GLUE's own files are as good as the Hub's, unless they declare that they stand in for them;
    files of any other layout may be anything.
    """
    copies, others = list[_Fact](), list[_Fact]()
    declared: dict[str, list[_Fact]] = defaultdict(list)
    for cell in shown:
        sources = _sources(cell)
        if not sources:
            continue
        content = cell.cell.data_hash[:8]
        if name := _data_name(cell):
            declared[name].append((cell, content))
        elif sources <= _expected_sources(cell.task):
            copies.append((cell, content))
        else:
            others.append((cell, f"{content} from {' and '.join(sorted(sources))}"))
    for name, facts in declared.items():
        yield f"{STAND_IN}{name}: {_merged(facts, shown)}."
    if copies:
        yield f"Read from files, not from the Hub: {_merged(copies, shown)}."
    if others:
        yield (
            "Possibly stand-in data: read from files in neither the Hub's nor GLUE's own layout: "
            f"{_merged(others, shown)}."
        )


_BY_NAME = {task.name: task for task in TASKS}


def _expected_sources(name: str) -> set[str | None]:
    """Return the sources of a copy of GLUE's own files or of the Hub's, or of a custom task."""
    if (task := _BY_NAME.get(name)) is None:
        return {f"files of {name}"}
    own = {task.glue.folder if task.glue else None, name, f"glue/{name}"}
    own.add(f"{task.folder or name}/{task.config}")
    return own | (_expected_sources(task.trained_on) if task.trained_on else set())


def _data_name(shown: _ShownCell) -> str:
    """Return the name that a cell's data declare."""
    names = (result.data.get("name") for result in shown.cell.results)
    return " and ".join(sorted({name for name in names if name}))


def _sources(shown: _ShownCell) -> set[str]:
    """Return what a cell's data were read from, other than the Hub."""
    data = [result.data for result in shown.cell.results]
    return {str(record.get("source")) for record in data if record.get("revision") is None}


def _names_of_several(shown: Sequence[_ShownCell]) -> Iterable[str]:
    """Say which of several models of one name is the newest: retraining in a folder keeps it."""
    newest: dict[str, dict[str, str]] = defaultdict(dict)
    for cell in shown:
        model, finished = cell.row.model, max(result.finished for result in cell.cell.results)
        of_name = newest[model.name]
        of_name[model.digest] = max(finished, of_name.get(model.digest, ""))
    for name, models in newest.items():
        if len(models) > 1:
            latest = max(models, key=lambda digest: models[digest])
            yield f"{len(models)} models are named {name}; the newest results are from {latest}."


def _overlap(shown: Sequence[_ShownCell]) -> Iterable[str]:
    """Count the evaluation examples that a model may have been trained on."""
    facts: dict[str, list[_Fact]] = defaultdict(list)
    for cell in shown:
        if (overlap := cell.cell.results[0].data.get("overlap", 0)) > 0:
            facts["Test" if cell.task in _EVALUATED_ON_TEST else "Dev"].append((cell, str(overlap)))
    for split, of_split in facts.items():
        yield f"{split} examples that are also in train: {_merged(of_split, shown)}."


def _transfer_sets(shown: Sequence[_ShownCell]) -> Iterable[str]:
    """Name the texts without labels that students learned from, and what was dropped of them."""
    facts = []
    for cell in shown:
        result = cell.cell.results[0]
        if texts := texts_added(result):
            added = result.data["transfer_set"]
            names = ", ".join(str(file.get("name")) for file in added["files"])
            dropped = [f"{number:,} {why}" for why, number in added["dropped"].items() if number]
            less = f", less {' and '.join(dropped)}" if dropped else ""
            facts.append((cell, f"{texts:,} of {names}{less}"))
    if facts:
        yield f"Unlabelled texts, learned by the teacher's answers: {_merged(facts, shown)}."


_DEGENERATE = "Degenerate (one answer to everything, or nearly one number)"


def _degenerate(shown: Sequence[_ShownCell]) -> Iterable[str]:
    """Name the runs that learned nothing; they count."""
    facts = list(_marked(shown, lambda mark: mark.startswith("degenerate")))
    if facts:
        yield f"{_DEGENERATE}, but counted: {_merged(facts, shown)}."


def _other_marks(shown: Sequence[_ShownCell]) -> Iterable[str]:
    """Name the runs with other marks, except that of the best epoch: the label names it."""
    marks = {mark for cell in shown for result in cell.cell.results for mark in result.marks}
    for mark in sorted(marks):
        if not mark.startswith("degenerate") and not mark.endswith("the best on dev"):
            facts = _marked(shown, partial(eq, mark))
            yield f"Marked '{mark}', but counted: {_merged(facts, shown)}."


def _marked(shown: Sequence[_ShownCell], matches: Callable[[str], bool]) -> Iterable[_Fact]:
    return _of_results(shown, lambda result: any(map(matches, result.marks)))


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {' and '.join(map(str, seeds))}"


def _unsealed(shown: Sequence[_ShownCell]) -> Iterable[str]:
    """Name the results whose files have no checksum."""
    if facts := list(_of_results(shown, lambda result: result.seal is None)):
        yield (
            "Unsealed (saved by an earlier version, without a checksum: `tables --verify` shows "
            f"whether a score was altered since): {_merged(facts, shown)}."
        )


def _withheld(shown: Sequence[_ShownCell]) -> Iterable[str]:
    """Name the results whose predictions nobody else has."""
    if facts := list(_of_results(shown, lambda result: result.predictions is None)):
        yield f"Predictions not published: {_merged(facts, shown)}."


def _of_results(
    shown: Sequence[_ShownCell], matches: Callable[[TaskResult], bool]
) -> Iterable[_Fact]:
    for cell in shown:
        if seeds := [result.seed for result in cell.cell.results if matches(result)]:
            yield cell, _seeds(seeds)


def _undefined(shown: Sequence[_ShownCell]) -> Iterable[str]:
    facts = []
    for cell in shown:
        pairs = zip(cell.cell.results, cell.cell.scores, strict=True)
        if seeds := [result.seed for result, score in pairs if score is None]:
            facts.append((cell, _seeds(seeds)))
    if facts:
        yield (
            "Not counted, since the score is not defined (constant predictions): "
            f"{_merged(facts, shown)}."
        )


def _versions(shown: Sequence[_ShownCell]) -> Iterable[str]:
    """Name versions that differ within a row; of the code its version alone, not the commit."""
    results_by_row: dict[str, list[TaskResult]] = defaultdict(list)
    for cell in shown:
        results_by_row[cell.row.short] += cell.cell.results
    labels_by_text: dict[str, list[str]] = defaultdict(list)
    for label, results in results_by_row.items():
        provenances = [result.provenance for result in results]
        codes = sorted({str(record.get("version")) for record in provenances})
        if len(codes) > 1:
            text = f"Made by several versions of the code: {', '.join(codes)}"
            labels_by_text[text].append(label)
        libraries = [record.get("libraries", {}) for record in provenances]
        for name in sorted(set().union(*libraries)):
            versions = sorted({str(of_run.get(name)) for of_run in libraries})
            if len(versions) > 1:
                text = f"Made with several versions of {name}: {', '.join(versions)}"
                labels_by_text[text].append(label)
    for text, labels in labels_by_text.items():
        is_of_all = len(labels) == len(results_by_row)
        yield f"{text}." if is_of_all else f"{text}. Rows: {'; '.join(labels)}."


def _machines(shown: Sequence[_ShownCell]) -> Iterable[str]:
    """Name cells of mixed hardware: a seed reproduces on one device with one number of threads."""
    facts = []
    for cell in shown:
        provenances = [result.provenance for result in cell.cell.results]
        machines = {f"{record.get('device')} x {record.get('threads')}" for record in provenances}
        if len(machines) > 1:
            facts.append((cell, f"on {' and '.join(sorted(machines))}"))
    if facts:
        yield f"Seeds of one cell ran on different devices or threads: {_merged(facts, shown)}."


_NOTES: tuple[Callable[[Sequence[_ShownCell]], Iterable[str]], ...] = (
    _hyper_parameters,
    _names_of_several,
    _from_files,
    _overlap,
    _transfer_sets,
    _degenerate,
    _other_marks,
    _undefined,
    _unsealed,
    _withheld,
    _versions,
    _machines,
)
