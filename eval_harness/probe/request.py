"""What `probe` was asked for: models, texts, pairs and tasks, read and checked without torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from angels_share.errors import UserError
from angels_share.files import hash_of
from angels_share.flags import Options
from angels_share.readers.columns import read_columns
from angels_share.readers.text_files import TABLE_ENDINGS, fault_in_text, read_lines
from eval_harness.data.splits import TaskData, evenly, load_task
from eval_harness.data.texts import Split
from eval_harness.probe.hidden_words import SHARE, Span, differing_word, words_of
from eval_harness.results.measures import MEASURES
from eval_harness.results.probes import OF_PAIRS, OF_TEXT, key_of
from eval_harness.runs.models import identify, training_of
from eval_harness.runs.run import Model, Training
from eval_harness.tasks.kinds import TEXTS
from eval_harness.tasks.lookup import tasks_named

VERSION = 1
"""Raise it when the same models and data give other numbers."""
_TAKEN = {OF_TEXT, OF_PAIRS, *(measure.name for measure in MEASURES)}
_COLUMNS = ("sentence_good", "sentence_bad")
_PHENOMENON = "UID"
"""The columns of BLiMP's files."""


@dataclass(frozen=True)
class HeldOutText:
    """Texts whose hidden words are predicted.

    Attributes:
        texts: at least one word in each.
        ids: file and line of each.
        files: their names, for the table.
        total: the number of texts in the files.
    """

    texts: Sequence[str]
    ids: Sequence[str]
    files: Sequence[str]
    total: int


@dataclass(frozen=True)
class MinimalPair:
    """Two sentences that differ in one word, the first of which is the better one."""

    good: str
    bad: str
    places: tuple[Span, Span]
    phenomenon: str
    id: str


@dataclass(frozen=True)
class MinimalPairs:
    """Minimal pairs.

    Attributes:
        pairs: those that differ in one word.
        files: their names, for the table.
        left_out: the number of pairs that differ in more than a word.
    """

    pairs: Sequence[MinimalPair]
    files: Sequence[str]
    left_out: int


@dataclass(frozen=True)
class Subject:
    """A model to probe."""

    model: Model
    training: Training | None


@dataclass(frozen=True)
class Request:
    """Models and what to measure of them.

    Attributes:
        subjects: the models, each once.
        teacher: the model that the others are compared with token by token; one of `subjects`.
        text: the held-out text, if any.
        pairs: the minimal pairs, if any.
        tasks: the tasks to fit linear probes for.
        limit: the maximum number of texts, of pairs of a file, and of examples of a split.
        max_seq_length: where texts are cut, in tokens.
        seed: of the choice of hidden words.
        batch_size: texts in a batch, which changes no number beyond rounding.
        device: where to compute.
    """

    subjects: Sequence[Subject]
    teacher: Subject | None
    text: HeldOutText | None
    pairs: MinimalPairs | None
    tasks: Sequence[TaskData[Split]]
    limit: int
    max_seq_length: int
    seed: int
    batch_size: int
    device: str

    @cached_property
    def settings(self) -> Mapping[str, Mapping[str, Any]]:
        """For each probe every setting that changes its numbers."""
        shared = {"version": VERSION, "max_seq_length": self.max_seq_length}
        settings: dict[str, Mapping[str, Any]] = {}
        if self.text is not None:
            settings[OF_TEXT] = {
                **shared,
                "content": hash_of(list(self.text.texts), 16),
                "hidden": SHARE,
                "seed": self.seed,
                "teacher": self.teacher.model.key if self.teacher else None,
            }
        if self.pairs is not None:
            pairs = [[pair.good, pair.bad, pair.phenomenon] for pair in self.pairs.pairs]
            settings[OF_PAIRS] = {**shared, "content": hash_of(pairs, 16)}
        for data in self.tasks:
            task = data.task
            settings[task.name] = {
                **shared,
                "content": data.content,
                "columns": list(task.columns),
                "labels": list(task.labels),
                "measures": list(task.primary),
                "version": [VERSION, task.version],
            }
        return settings

    def keys_of(self, model: Model) -> dict[str, str]:
        """Return the keys of a model's results by probe."""
        return {probe: key_of(model, probe, settings) for probe, settings in self.settings.items()}


def request_of(options: Options) -> Request:
    """Read and check all that a command asks for.

    Raises:
        UserError: something is missing, or can't be read.
    """
    if not (options.text or options.pairs or options.tasks):
        raise UserError("nothing to measure: add --text FILES, --pairs FILES or --tasks NAMES")
    if options.teacher and not options.text:
        raise UserError("--teacher is compared on held-out text: add --text FILES")
    if options.data_dir and not options.tasks:
        raise UserError("--data_dir holds the data of tasks: add --tasks NAMES")
    names = [*([options.teacher] if options.teacher else []), *options.model]
    subjects = list({model.key: model for model in map(identify, names)}.values())
    for model in subjects:
        if model.is_onnx:
            raise UserError(f"{model.name}: an ONNX file can't be probed: give its model's folder")
    found = [Subject(model, training_of(model)) for model in subjects]
    tasks = tasks_named(options.tasks or ())
    for task in tasks:
        if task.kind != TEXTS:
            raise UserError(f"--tasks {task.name}: there are no linear probes for its kind of task")
        if task.name in _TAKEN:
            raise UserError(f"a task called {task.name!r}: that is a measure here; rename it")
    folder = Path(options.data_dir).expanduser() if options.data_dir else None
    limit = options.limit
    return Request(
        subjects=found,
        teacher=found[0] if options.teacher else None,
        text=_read_texts(options.text, limit) if options.text else None,
        pairs=_read_pairs(options.pairs, limit) if options.pairs else None,
        tasks=[load_task(task, folder, limit=limit) for task in tasks],
        limit=limit,
        max_seq_length=options.max_seq_length,
        seed=options.seed,
        batch_size=options.batch_size,
        device=options.device,
    )


def _read_texts(names: Sequence[str], limit: int) -> HeldOutText:
    found: list[tuple[str, str]] = []
    for name in names:
        path = Path(name).expanduser()
        before = len(found)
        found += [(where, text) for where, text in _texts_of(path) if words_of(text)]
        if len(found) == before:
            raise UserError(f"--text {name}: holds no word; name files with a text per line")
    chosen = [found[number] for number in evenly(len(found), limit)]
    ids, texts = zip(*chosen, strict=True)
    return HeldOutText(texts, ids, [Path(name).name for name in names], len(found))


def _texts_of(path: Path) -> list[tuple[str, str]]:
    """Return the texts of a file, a line or a row each, with their places."""
    if path.is_dir():
        raise UserError(f"--text {path}: a folder; name its files")
    if path.suffix in TABLE_ENDINGS:
        columns = read_columns(path, ["text"])
        return [(columns.where(row), text) for row, text in enumerate(columns.texts("text"))]
    lines = [(f"{path}:{number}", line) for number, line in read_lines(path)]
    for where, line in lines:
        if fault := fault_in_text(line):
            raise UserError(f"{where}: {fault}")
    return lines


def _read_pairs(names: Sequence[str], limit: int) -> MinimalPairs:
    pairs: list[MinimalPair] = []
    left_out = 0
    for name in names:
        path = Path(name).expanduser()
        columns = read_columns(path, _COLUMNS, (_PHENOMENON,))
        good, bad = (columns.texts(column) for column in _COLUMNS)
        phenomena = columns.cells.get(_PHENOMENON) or [path.stem] * len(good)
        of_file = []
        for row in range(len(good)):
            if (places := differing_word(good[row], bad[row])) is None:
                left_out += 1
                continue
            of_file.append(
                MinimalPair(good[row], bad[row], places, str(phenomena[row]), columns.where(row))
            )
        if not of_file:
            raise UserError(f"--pairs {name}: no pair of it differs in exactly one word")
        pairs += [of_file[number] for number in evenly(len(of_file), limit)]
    return MinimalPairs(pairs, [Path(name).name for name in names], left_out)
