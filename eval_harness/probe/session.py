"""Measures models one after the other, and saves each result as soon as it is there."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import tqdm

from angels_share.errors import RunFailed
from eval_harness.data.splits import TaskData
from eval_harness.data.texts import Split
from eval_harness.probe.measure import (
    LanguageModel,
    load,
    measure_pairs,
    measure_task,
    measure_text,
)
from eval_harness.probe.request import Request, Subject
from eval_harness.results.measures import MEASURES
from eval_harness.results.probes import OF_PAIRS, OF_TEXT, Examples, ProbeResult, write
from eval_harness.tasks.metrics import compute_metrics
from eval_harness.training.provenance import provenance_on

_BAR_AFTER_SECONDS = 10.0
_LOG_SECONDS = 60.0  # between updates of the progress bar in a file


def measure(root: Path, request: Request, missing: Sequence[tuple[Subject, Sequence[str]]]) -> None:
    """Measure models and save the results.

    Args:
        root: the results folder.
        request: what was asked for.
        missing: the models that lack a result, each with the probes that it lacks.

    Raises:
        UserError: a model can't be loaded.
        RunFailed: a model gives numbers that are not finite.
    """
    teacher = None
    if request.teacher is not None and any(OF_TEXT in probes for _, probes in missing):
        teacher = load(request.teacher.model, request.device)
    with _bar(sum(_batches(request, probe) for _, probes in missing for probe in probes)) as bar:
        for subject, probes in missing:
            is_teacher = teacher is not None and subject == request.teacher
            model = teacher if is_teacher and teacher else load(subject.model, request.device)
            compared = None if is_teacher else teacher
            for probe in probes:
                started = time.perf_counter()
                examples, facts = _measured(request, probe, model, compared, bar.update)
                _require_finite(subject, probe, examples)
                result = ProbeResult(
                    model=subject.model,
                    training=subject.training,
                    probe=probe,
                    settings=request.settings[probe],
                    scores=_scores(request, probe, examples),
                    facts={**facts, "count": len(examples["id"])},
                    provenance=provenance_on(model.device),
                    seconds=round(time.perf_counter() - started, 2),
                    finished=datetime.now(UTC).isoformat(timespec="seconds"),
                )
                write(root, result, examples)


def _measured(
    request: Request,
    probe: str,
    model: LanguageModel,
    teacher: LanguageModel | None,
    advance: Callable[[], object],
) -> tuple[Examples, dict[str, Any]]:
    """Return what was measured of each example, and what the table says of the data."""
    shared: dict[str, Any] = {
        "max_seq_length": request.max_seq_length,
        "batch_size": request.batch_size,
        "advance": advance,
    }
    if probe == OF_TEXT and (text := request.text) is not None:
        examples = measure_text(model, teacher, text, seed=request.seed, **shared)
        return examples, {"files": list(text.files), "of": text.total}
    if probe == OF_PAIRS and (pairs := request.pairs) is not None:
        examples = measure_pairs(model, pairs, **shared)
        return examples, {"files": list(pairs.files), "left_out": pairs.left_out}
    data = next(each for each in request.tasks if each.task.name == probe)
    assert data.train is not None
    facts = {"source": data.source, "name": data.name, "train": len(data.train)}
    return measure_task(model, data, **shared), facts


def _require_finite(subject: Subject, probe: str, examples: Examples) -> None:
    for name, values in examples.items():
        if values.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
            where = examples["id"][int(np.argmin(finite))]
            raise RunFailed(f"{subject.model.name}: {probe}: {name} of {where} is not finite")


def _scores(request: Request, probe: str, examples: Examples) -> Mapping[str, float | None]:
    if probe in (OF_TEXT, OF_PAIRS):
        return {each.name: each.of(examples) for each in MEASURES if each.has(examples)}
    task = next(data.task for data in request.tasks if data.task.name == probe)
    found = compute_metrics(task, examples["predicted"], examples["label"])
    return {name: value if np.isfinite(value) else None for name, value in found.items()}


def _batches(request: Request, probe: str) -> int:
    """Return the number of batches of a probe, for the bar."""
    if probe == OF_TEXT:
        sizes = [len(request.text.texts)] if request.text else []
    elif probe == OF_PAIRS:
        sizes = [len(request.pairs.pairs)] if request.pairs else []
    else:
        data = next(each for each in request.tasks if each.task.name == probe)
        sizes = _sizes(data)
    return sum(-(-size // request.batch_size) for size in sizes)


def _sizes(data: TaskData[Split]) -> list[int]:
    return [len(part) for part in data.splits[:2] for _ in part.texts]


@contextmanager
def _bar(total: int) -> Iterator[Any]:
    with tqdm.tqdm(
        total=total,
        desc="probes",
        unit="batch",
        file=sys.stderr,
        delay=_BAR_AFTER_SECONDS,
        mininterval=1 if sys.stderr.isatty() else _LOG_SECONDS,
    ) as bar:
        yield bar
