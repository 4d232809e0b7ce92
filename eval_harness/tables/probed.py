"""What `probe` measured, by row, with the differences from the first model. Imports no torch."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from angels_share.ablations import ABLATIONS
from angels_share.files import hash_of
from eval_harness.intervals.bootstrap import draws, metric_scores
from eval_harness.intervals.differences import RESAMPLES, Difference, Scores, difference, holm
from eval_harness.intervals.kept import Kept, keep, read_kept, require_kept
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
    """Return what the last `probe` of a results folder compared; new resamples are kept there."""
    shown = read_shown(root)
    if isinstance(shown, Invalid):
        return Probed(invalid=(shown,))
    found: list[_Measured] = []
    invalid = []
    ids: dict[str, str] = {}
    for key in (key for keys in shown.models for key in keys.values()):
        try:
            measured = _measured(root, read(root, key))
            if measured.ids != ids.setdefault(measured.result.probe, measured.ids):
                raise InvalidResult(root / PROBES / key, "has other examples than the rest")  # noqa: TRY301
            found.append(measured)
        except InvalidResult as error:
            invalid.append(Invalid(error.path.relative_to(root).as_posix(), error.reason))
    results = [each.result for each in found]
    rows, measures = _rows(results, shown.teacher), _measures(results)
    by_key = {each.result.key: each.kept for each in found}
    scores = {measure.name: _scores(measure, rows, by_key) for measure in measures}
    kept = [measure for measure in measures if scores[measure.name]]
    return Probed(rows, kept, scores, tuple(invalid))


class _Measured(NamedTuple):
    """A result, and its measures with their resamples, by name."""

    result: ProbeResult
    kept: Mapping[str, Kept]

    @property
    def ids(self) -> str:
        """A hash of its examples' names."""
        return next(iter(self.kept.values())).examples if self.kept else ""


def _measured(root: Path, result: ProbeResult) -> _Measured:
    """Return a result with its resamples: kept ones, or from its examples.

    Raises:
        InvalidResult: the examples aren't those of the result, or they are withheld and nothing was
            kept of them.
    """
    made_of = _made_of(result)
    kept = read_kept(root, made_of)
    if kept is None or not result.withheld:
        examples = read_examples(root, result)  # also where nothing else is needed: it checks them
        kept = kept or keep(root, made_of, _resampled(result, examples))
    if not kept:
        raise InvalidResult(root / PROBES / result.key, "has no examples")
    return _Measured(result, kept)


def keep_probe(root: Path, result: ProbeResult) -> None:
    """Keep what tables need of a result's examples, for when they are withheld.

    Raises:
        InvalidResult: the examples aren't those of the result.
        RunFailed: it can't be kept: no room, say.
    """
    _measured(root, result)
    require_kept(root, _made_of(result))


def _made_of(result: ProbeResult) -> dict[str, Any]:
    return {
        "probe": result.probe,
        "measures": list(result.settings.get("measures", ())),
        "examples": result.saved_examples["sha256"],
        "draws": _SEED,
        "resamples": RESAMPLES,
    }


def _resampled(result: ProbeResult, examples: Examples) -> dict[str, Kept]:
    """Return each measure of a result under draws that are the same for all results."""
    ids = list(map(str, examples.get("id", ())))
    measures = [each for each in _measures([result]) if each.has(examples)] if ids else []
    parts: dict[str, list[Numbers]] = {measure.name: [] for measure in measures}
    for counts in draws(np.random.default_rng(_SEED), len(ids), RESAMPLES) if ids else ():
        for measure in measures:
            parts[measure.name].append(measure.score(counts, examples))
    points = {measure.name: measure.of(examples) for measure in measures}
    return {
        measure.name: Kept(
            np.array([np.nan if points[measure.name] is None else points[measure.name]], float),
            np.concatenate(parts[measure.name])[None],
            hash_of(ids, 16),
            len(ids),
            _counted(measure, examples),
        )
        for measure in measures
    }


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


def _scores(
    measure: Measure, rows: Sequence[ProbedRow], found: Mapping[str, Mapping[str, Kept]]
) -> dict[str, Scores]:
    """Return a measure's scores of the rows that have it; a teacher isn't compared with itself."""
    scores = {}
    for row in rows:
        results = [
            result
            for result in row.results.get(measure.probe, ())
            if measure.name in found[result.key]
        ]
        kept = [found[result.key][measure.name] for result in results]
        points = np.concatenate([each.points for each in kept]) if kept else np.array([np.nan])
        if not np.isfinite(points).all() or (row.is_teacher and measure.of_teacher):
            continue
        scores[row.label] = Scores(
            points,
            np.concatenate([each.resampled for each in kept]),
            tuple(result.training.seed if result.training else None for result in results),
            kept[0].count,
            kept[0].counted,
        )
    return scores


def _counted(measure: Measure, examples: Examples) -> str:
    """Return a hash of what a score is divided by, where the tokenizer decides it.

    A tokenizer that cuts a text earlier reads fewer of its words, and a perplexity is per token.
    """
    column = {LOSS.name: "words", PERPLEXITY.name: "tokens"}.get(measure.name)
    return hash_of(examples[column].tolist(), 16) if column else ""
