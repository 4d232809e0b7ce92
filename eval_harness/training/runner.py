"""One run: fine-tunes a model on a task from one seed, and says what it predicts.

`run_task` is also what a sweep's workers call. The model as published, the tokenizer and the
tokenized data are kept between runs; a copy of the model is all that a run changes.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from transformers import PreTrainedModel

from angels_share.errors import RunFailed, UserError
from angels_share.imports import resolve
from angels_share.sealed_folder import require_unchanged
from angels_share.tokenizing import load_tokenizer
from eval_harness.data.splits import TaskData, load_task
from eval_harness.data.token_rows import TokenRows
from eval_harness.results.predictions import Predictions
from eval_harness.results.record import TaskResult
from eval_harness.runs.run import Run
from eval_harness.training.encoding import Collator
from eval_harness.training.evaluation import Evaluation, Evaluator
from eval_harness.training.fine_tuner import Report, train
from eval_harness.training.model_loading import LoadedModel, load_model, save_weights
from eval_harness.training.provenance import provenance_on

_T = TypeVar("_T")
_PLAIN = "eval_harness.training.fine_tuner:make_trainer"


def run_task(run: Run, report: Report) -> tuple[TaskResult, Predictions]:
    """Fine-tunes, predicts, measures.

    Args:
        run: what to do; nothing that changes the number stands elsewhere.
        report: is told the share of the run's steps that is done.

    Raises:
        RunFailed: the run went wrong: a number that isn't finite, data that changed meanwhile.
        UserError: the model or the data can't be used.
    """
    clock = Clock()
    with clock.stage("total"):
        with clock.stage("prepare"):
            prepared = _prepared(run)
            model = prepared.loaded.copy(run.seed)
        evaluator = _evaluator(run, model, prepared)
        with clock.stage("train"):
            history = _train(run, model, prepared, evaluator, report)
        with clock.stage("evaluate"):
            evaluation = evaluator.result()
        if run.keep_weights:
            save_weights(Path(run.keep_weights), model, prepared.tokenizer)
    made_with = {
        **provenance_on(model.device),  # where the Trainer put it
        "new_weights": list(prepared.loaded.new),
        "seeds": list(run.seeds),
    }
    record = {"history": history, "times": clock.seconds, "provenance": made_with}
    return _result(run, prepared.data, evaluation, record), evaluation.predictions


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Takes the time of a stage."""
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 3)


@dataclass(frozen=True)
class Prepared:
    """What runs of one model on one task share."""

    data: TaskData[Any]
    tokenizer: Any
    encoded: Mapping[str, TokenRows]
    loaded: LoadedModel


def _evaluator(run: Run, model: PreTrainedModel, prepared: Prepared) -> Evaluator:
    evaluate = resolve(run.task.kind.evaluate)
    data, pad_id = prepared.data, prepared.loaded.pad_id
    return Evaluator(
        model,
        lambda: evaluate(run, model, data, prepared.encoded, pad_id),
        data.evaluation[0].name,
        keeps_weights=run.keep_weights is not None,
    )


def _train(
    run: Run, model: PreTrainedModel, prepared: Prepared, evaluator: Evaluator, report: Report
) -> Sequence[Mapping[str, float]]:
    method, values = run.method, run.settings.task["values"]
    if method is not None and "teacher" in method.folders:
        require_unchanged(Path(method.folders["teacher"]))
    with tempfile.TemporaryDirectory() as scratch:
        return train(
            model,
            resolve(method.factory if method else _PLAIN),
            {**values, **run.neutral},
            prepared.encoded[prepared.data.train.name],
            Collator(prepared.loaded.pad_id, _width(run)),
            seed=run.seed,
            scratch=Path(scratch),
            report=report,
            at_epoch_end=evaluator.look if run.settings.row["choose"] == "best" else None,
            options=method.options if method else {},
            folders=method.folders if method else {},
        )


def _width(run: Run) -> int | None:
    """What all batches are padded to; None where each is as wide as its longest example."""
    values = run.settings.task["values"]
    return int(values["max_seq_length"]) if values.get("pad_to_max_length") else None


# What is kept between runs: of each kind the last one, since a sweep keeps like runs together.

_kept: dict[str, tuple[Any, Any]] = {}


def _keep(kind: str, key: Any, make: Callable[[], _T]) -> _T:
    if kind not in _kept or _kept[kind][0] != key:
        _kept.pop(kind, None)  # before there are two of them
        _kept[kind] = (key, make())
    kept: _T = _kept[kind][1]
    return kept


def _prepared(run: Run) -> Prepared:
    data = _data(run)
    model = run.model
    tokenizer = _keep("tokenizer", model.key, lambda: load_tokenizer(model.source, model.revision))
    encoded = _encoded(run, data, tokenizer)
    key = (model.key, run.task)
    loaded = _keep("model", key, lambda: load_model(model, run.task, tokenizer))
    _check_fit(run, loaded, encoded)
    return Prepared(data, tokenizer, encoded, loaded)


def _data(run: Run) -> TaskData[Any]:
    limit = run.settings.row["limit"]
    folder = Path(run.data_dir) if run.data_dir else None
    wanted = run.settings.task["data"]
    key = (run.task, folder, limit, run.data_revision, run.predict_test, wanted)
    data = _keep("data", key, lambda: load_task(
        run.task, folder, limit=limit, revision=run.data_revision, test=run.predict_test
    ))  # fmt: skip
    if data.content != wanted:
        raise RunFailed(
            f"{data.source}: what it holds for {run.task.title} changed since the sweep began; "
            "run the command again"
        )
    return data


def _encoded(run: Run, data: TaskData[Any], tokenizer: Any) -> dict[str, TokenRows]:
    """The token ids of every split, by its name."""
    values = run.settings.task["values"]
    of_length = {name: values[name] for name in run.task.kind.lengths}
    key = (run.model.key, run.task, data.content, len(data.test), tuple(of_length.items()))
    encode: Callable[..., TokenRows] = resolve(run.task.kind.encode)
    parts = (data.train, *data.evaluation, *data.test)
    return _keep("encoded", key, lambda: {
        part.name: encode(part, tokenizer, **of_length) for part in parts
    })  # fmt: skip


def _check_fit(run: Run, loaded: LoadedModel, encoded: Mapping[str, TokenRows]) -> None:
    """Refuses ids and lengths that the model has no embedding for: an index error, else."""
    largest = max(int(part.ids.max()) for part in encoded.values())
    known = loaded.model.config.vocab_size
    if largest >= known:
        raise UserError(
            f"{run.model.name}: its tokenizer gives id {largest} and its vocab_size is {known}: "
            "they do not belong together"
        )
    longest = max(int(part.lengths.max()) for part in encoded.values())
    longest = max(longest, _width(run) or 0)
    if loaded.max_tokens is not None and longest > loaded.max_tokens:
        raise UserError(
            f"{run.model.name} reads {loaded.max_tokens} tokens and {run.task.title} has "
            f"{longest}: --max_seq_length {loaded.max_tokens}"
        )


def _result(
    run: Run, data: TaskData[Any], evaluation: Evaluation, record: Mapping[str, Any]
) -> TaskResult:
    parts = (data.train, *data.evaluation, *data.test)
    return TaskResult(
        model=run.model,
        task=run.task.name,
        seed=run.seed,
        settings=run.settings,
        score=evaluation.scores[data.evaluation[0].name]["score"],
        scores=evaluation.scores,
        marks=evaluation.marks,
        data={
            "source": data.source,
            "revision": data.revision,
            "content": data.content,
            "examples": {part.name: len(part) for part in parts},
            "overlap": data.overlap,
            **({"name": data.name} if data.name else {}),
        },
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        **record,
    )
