"""What `probe` measured, by row, with the differences from the first model. Imports no torch."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from angels_share.ablations import ABLATIONS
from eval_harness.intervals.bootstrap import draws, metric_scores
from eval_harness.intervals.differences import RESAMPLES, Difference, Scores, difference, holm
from eval_harness.results.measures import LOSS, MEASURES, PERPLEXITY, Measure, Numbers
from eval_harness.results.probes import (
    OF_PAIRS,
    OF_TEXT,
    PROBES,
    Examples,
    ProbeResult,
    read,
    read_examples,
    read_shown,
)
from eval_harness.results.store import Invalid, InvalidResult
from eval_harness.rows.labels import one_line
from eval_harness.tables.cells import title_of
from eval_harness.tasks.registry import Metric

_SEED = 0
"""Of the bootstrap's draws: the same files give the same table."""


@dataclass(frozen=True)
class ProbedRow:
    """A model, or several that differ only in the seed of their pre-training.

    Attributes:
        label: its name in tables.
        results: for each probe one result per seed, in the order of the seeds.
        is_teacher: whether the others were compared with it token by token.
    """

    label: str
    results: Mapping[str, Sequence[ProbeResult]]
    is_teacher: bool

    @property
    def count(self) -> int:
        """The number of models."""
        return max(map(len, self.results.values()))


@dataclass(frozen=True)
class Probed:
    """What the last `probe` compared.

    Attributes:
        rows: the models, the teacher first.
        measures: the measures that some row has, in the order of a table's columns.
        scores: for each measure's name the scores of the rows that have it, by label.
        invalid: the files that don't count.
    """

    rows: Sequence[ProbedRow] = ()
    measures: Sequence[Measure] = ()
    scores: Mapping[str, Mapping[str, Scores]] = field(default_factory=dict)
    invalid: Sequence[Invalid] = ()

    @property
    def reference(self) -> str | None:
        """The row that the others are compared with: the first that isn't the teacher."""
        students = [row.label for row in self.rows if not row.is_teacher]
        return next(iter([*students, *(row.label for row in self.rows)]), None)

    @cached_property
    def differences(self) -> Mapping[tuple[str, str], Difference]:
        """The differences from the reference, by measure and row."""
        found = {}
        for name, scores in self.scores.items():
            base = scores.get(str(self.reference))
            for label, each in scores.items():
                change = difference(each, base) if base is not None and each is not base else None
                if change is not None:
                    found[name, label] = change
        return found

    @cached_property
    def adjusted(self) -> Mapping[tuple[str, str], float]:
        """The p-values of all differences that have one, adjusted for their number."""
        known = {key: each.p for key, each in self.differences.items() if each.p is not None}
        return dict(zip(known, holm(list(known.values())), strict=True))


def load_probed(root: Path) -> Probed:
    """Return what the last `probe` of a results folder compared."""
    shown = read_shown(root)
    if isinstance(shown, Invalid):
        return Probed(invalid=(shown,))
    found: list[tuple[ProbeResult, Examples]] = []
    invalid = []
    ids: dict[str, list[str]] = {}
    for key in (key for keys in shown.models for key in keys.values()):
        try:
            result = read(root, key)
            measured = read_examples(root, result)
            own = list(map(str, measured.get("id", ())))
            if not own or own != ids.setdefault(result.probe, own):
                raise InvalidResult(root / PROBES / key, "has other examples than the rest")  # noqa: TRY301
            found.append((result, measured))
        except InvalidResult as error:
            invalid.append(Invalid(error.path.relative_to(root).as_posix(), error.reason))
    rows = _rows([result for result, _ in found], shown.teacher)
    examples = {result.key: each for result, each in found}
    measures = _measures(result for result, _ in found)
    resampled = _resampled(measures, found)
    scores = {measure.name: _scores(measure, rows, examples, resampled) for measure in measures}
    kept = [measure for measure in measures if scores[measure.name]]
    return Probed(rows, kept, scores, tuple(invalid))


def _rows(results: Sequence[ProbeResult], teacher: str | None) -> list[ProbedRow]:
    groups: dict[str, dict[str, list[ProbeResult]]] = {}
    first: dict[tuple[str, int], str] = {}
    for result in results:
        group, training = result.model.key, result.training
        # A copy of a student is no further seed: it stands for itself.
        if training is not None and group != teacher:
            owner = first.setdefault((training.group, training.seed), group)
            group = training.group if owner == group else group
        groups.setdefault(group, {}).setdefault(result.probe, []).append(result)
    rows: list[ProbedRow] = []
    for group, by_probe in groups.items():
        for of_probe in by_probe.values():
            of_probe.sort(key=lambda result: result.training.seed if result.training else 0)
        label = _label(next(iter(by_probe.values())))
        if label in [row.label for row in rows]:
            label = f"{label} ({group[-8:]})"
        rows.append(ProbedRow(label, by_probe, is_teacher=group == teacher))
    return sorted(rows, key=lambda row: not row.is_teacher)


def _label(results: Sequence[ProbeResult]) -> str:
    """Return a model's name; of several the part of their folders' names that names no seed."""
    first = results[0]
    if len(results) == 1 or first.training is None:
        return one_line(first.model.name)
    parts = Path(first.model.source).parts
    kept = [part for part in parts if not re.fullmatch(r"seed[-_]?\d+", part)] or list(parts)
    name = re.sub(rf"[-_]?(seed)?[-_]?{first.training.seed}$", "", kept[-1]) or kept[-1]
    return one_line(ABLATIONS[name].title if name in ABLATIONS else name)


def _measures(results: Iterable[ProbeResult]) -> list[Measure]:
    """Return the measures of these results' probes: pairs, tasks, then those of the text."""
    tasks = {
        result.probe: _task_measure(result)
        for result in results
        if result.probe not in (OF_TEXT, OF_PAIRS)
    }
    of_pairs = [measure for measure in MEASURES if measure.probe == OF_PAIRS]
    return [*of_pairs, *tasks.values(), *(each for each in MEASURES if each.probe == OF_TEXT)]


def _task_measure(result: ProbeResult) -> Measure:
    metrics = tuple(result.settings["measures"])
    score = partial(_task_score, metrics)
    title = title_of(result.probe)
    return Measure(result.probe, result.probe, title, ("label", "predicted"), score)


def _task_score(metrics: Sequence[Metric], counts: Numbers, examples: Examples) -> Numbers:
    predictions = examples["predicted"][:, None]
    score: Numbers = 100 * metric_scores(metrics, counts, predictions, examples["label"])[:, 0]
    return score


def _resampled(
    measures: Sequence[Measure], found: Sequence[tuple[ProbeResult, Examples]]
) -> dict[tuple[str, str], Numbers]:
    """Return each result's score of each measure under the same draws, by measure and key."""
    parts: dict[tuple[str, str], list[Numbers]] = defaultdict(list)
    for probe in dict.fromkeys(measure.probe for measure in measures):
        of_probe = [(result.key, each) for result, each in found if result.probe == probe]
        if not of_probe:
            continue
        random = np.random.default_rng(_SEED)
        for counts in draws(random, len(of_probe[0][1]["id"]), RESAMPLES):
            for measure in measures:
                for key, examples in of_probe:
                    if measure.probe == probe and measure.has(examples):
                        parts[measure.name, key].append(measure.score(counts, examples))
    return {key: np.concatenate(each) for key, each in parts.items()}


def _scores(
    measure: Measure,
    rows: Sequence[ProbedRow],
    examples: Mapping[str, Examples],
    resampled: Mapping[tuple[str, str], Numbers],
) -> dict[str, Scores]:
    """Return a measure's scores of the rows that have it; a teacher isn't compared with itself."""
    scores = {}
    for row in rows:
        results = [
            result
            for result in row.results.get(measure.probe, ())
            if (measure.name, result.key) in resampled
        ]
        points = [measure.of(examples[result.key]) for result in results]
        if not points or None in points or (row.is_teacher and measure.of_teacher):
            continue
        scores[row.label] = Scores(
            np.array(points, dtype=float),
            np.stack([resampled[measure.name, result.key] for result in results]),
            tuple(result.training.seed if result.training else None for result in results),
            len(examples[results[0].key]["id"]),
            _counted(measure, examples[results[0].key]),
        )
    return scores


def _counted(measure: Measure, examples: Examples) -> tuple[float, ...]:
    """Return what a score is divided by, where the tokenizer decides it.

    A tokenizer that cuts a text earlier reads fewer of its words, and a perplexity is per token.
    """
    column = {LOSS.name: "words", PERPLEXITY.name: "tokens"}.get(measure.name)
    return tuple(examples[column].tolist()) if column else ()
