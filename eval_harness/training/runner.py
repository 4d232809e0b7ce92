"""One run: fine-tune a model on a task with one seed, evaluate it, return result and predictions.

`run_task` is what a sweep's workers call. The pretrained model, the tokenizer and the tokenized
data are cached between runs; a run only changes its own copy of the model.
"""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from transformers import PreTrainedModel

from angels_share.errors import RunFailed
from angels_share.imports import resolve
from angels_share.sealed_folder import require_unchanged
from angels_share.student_record import FINE_TUNED, steps_of_weights
from angels_share.tokenizing import load_tokenizer
from eval_harness.data.splits import TaskData, load_for_run
from eval_harness.data.token_rows import TokenRows
from eval_harness.data.transfer import TransferSet, read_transfer_set
from eval_harness.results.predictions import Predictions
from eval_harness.results.record import TaskResult
from eval_harness.runs.models import folder_of, training_of
from eval_harness.runs.run import Run
from eval_harness.tasks.registry import TASKS
from eval_harness.training.encoding import Collator, WithUnlabelled
from eval_harness.training.evaluation import Evaluator
from eval_harness.training.fine_tuner import Report, place, train
from eval_harness.training.model_loading import LoadedModel, load_for_task, save_weights
from eval_harness.training.onnx_model import load_file
from eval_harness.training.provenance import provenance_on
from eval_harness.training.tracking import tracked

_T = TypeVar("_T")
_PLAIN = "eval_harness.training.fine_tuner:make_trainer"


_one_run = threading.Lock()


def run_task(run: Run, report: Report) -> tuple[TaskResult, Predictions]:
    """Fine-tune and evaluate a model, one run at a time in a process.

    Args:
        run: the run, with every setting that changes its numbers.
        report: called with the share of the run's steps that is done.

    Raises:
        RunFailed: a number is not finite, or the data changed since the sweep began.
        UserError: the model or the data can't be used.
    """
    stopwatch = _Stopwatch()
    # The global random generators and the caches below are one run's: two at once in threads would
    # give other numbers under the same keys.
    with _one_run, stopwatch.stage("total"):
        with stopwatch.stage("prepare"):
            prepared = _prepare(run)
            model = prepared.loaded.copy(run.seed)
            # Read now: a damaged record must not end a run that has been trained.
            earlier = steps_of_weights(folder_of(run.model)) if run.save_weights_to else []
        evaluator = _evaluator(run, model, prepared)
        data, evaluated_split = prepared.data, prepared.data.evaluation[0].name
        with tracked(run) as trackers:
            with stopwatch.stage("train"):
                history = _train(
                    run, model, prepared, evaluator, report, reporting=trackers.arguments
                )
            with stopwatch.stage("evaluate"):
                evaluation = evaluator.result()
            trackers.log(
                evaluation.scores[evaluated_split], int(history[-1]["step"]) if history else 0
            )
    result = TaskResult(
        model=run.model,
        task=run.task.name,
        seed=run.seed,
        settings=run.settings,
        score=run.task.score_of(
            {split.name: evaluation.scores[split.name] for split in data.evaluation}
        ),
        scores=evaluation.scores,
        marks=evaluation.marks,
        data=_description(data, prepared.transfer),
        provenance={
            **provenance_on(model.device, onnx=run.model.is_onnx),  # where the Trainer put it
            "new_weights": list(prepared.loaded.new),
            "seeds": list(run.seeds),
            **prepared.training,
        },
        times=stopwatch.seconds,
        history=history,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    if run.save_weights_to:
        steps = [*earlier, _step(run, result)]
        save_weights(Path(run.save_weights_to), model, prepared.tokenizer, steps)
    return result, evaluation.predictions


def _step(run: Run, result: TaskResult) -> dict[str, Any]:
    """Return how a run made its model, for the record of what was made from what."""
    model, values = run.model, run.settings.task["values"]
    return {
        "what": FINE_TUNED,
        "from": {"name": model.name, "sha256": model.weights, "revision": model.revision},
        "settings": {
            "task": run.task.name,
            "seed": run.seed,
            "limit": run.settings.row["limit"],
            "method": run.method and {"name": run.method.name, **run.method.options},
            "num_train_epochs": values["num_train_epochs"],
            "learning_rate": values["learning_rate"],
        },
        "score": result.score,
        "is_share": run.task.higher_is_better,  # a perplexity is no share of 1
        "seconds": result.times["total"],
    }


class _Stopwatch:
    """The seconds of each stage of a run, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 3)


@dataclass(frozen=True)
class _Prepared:
    """The inputs that all runs of one model on one task share; `loaded` must be copied to train."""

    data: TaskData[Any]
    transfer: TransferSet | None
    train_set: TokenRows | WithUnlabelled | None
    tokenizer: Any
    encoded: Mapping[str, TokenRows]
    loaded: LoadedModel
    training: Mapping[str, Any]
    """How the model was pre-trained, where its folder says so."""


def _evaluator(run: Run, model: PreTrainedModel, prepared: _Prepared) -> Evaluator:
    evaluate = resolve(run.task.kind.evaluate)
    data, pad_id = prepared.data, prepared.loaded.pad_id
    return Evaluator(
        model,
        lambda: evaluate(run, model, data, prepared.encoded, pad_id),
        data.evaluation[0].name,
        keeps_weights=run.save_weights_to is not None,
        higher_is_better=run.task.higher_is_better,
    )


def _train(
    run: Run,
    model: PreTrainedModel,
    prepared: _Prepared,
    evaluator: Evaluator,
    report: Report,
    *,
    reporting: Mapping[str, Any],
) -> Sequence[Mapping[str, float]]:
    method, values = run.method, run.settings.task["values"]
    if run.model.is_onnx:
        return []
    if run.is_evaluation_alone:
        with tempfile.TemporaryDirectory() as scratch:
            place(model, {**values, **run.neutral}, Path(scratch))
        return []
    if method is not None and "teacher" in method.folders:
        require_unchanged(Path(method.folders["teacher"]))
    with tempfile.TemporaryDirectory() as scratch:
        return train(
            model,
            resolve(method.factory if method else _PLAIN),
            {**values, **run.neutral, **reporting},
            _training_set(run, prepared),
            Collator(prepared.loaded.pad_id, _width(run)),
            seed=run.seed,
            scratch=Path(scratch),
            report=report,
            at_epoch_end=evaluator.evaluate_epoch if run.settings.row["choose"] == "best" else None,
            options=method.options if method else {},
            folders=method.folders if method else {},
        )


def _training_set(run: Run, prepared: _Prepared) -> Any:
    """Return what a run learns from: the training split, or what its kind makes of it."""
    rows = prepared.train_set
    assert rows is not None
    if not run.task.kind.training_set:
        return rows
    return resolve(run.task.kind.training_set)(rows, run, prepared.tokenizer)


def _width(run: Run) -> int | None:
    """Return the width that all batches are padded to; None for that of their longest example."""
    values = run.settings.task["values"]
    return int(values["max_seq_length"]) if values.get("pad_to_max_length") else None


_last_of_each: dict[str, tuple[Any, Any]] = {}
"""Cache between runs: the last tokenizer, model, data and token ids, each with its key.

One of each is enough, since a sweep gives a worker runs of the same model and task in sequence.
"""


def _cached(kind: str, key: Any, make: Callable[[], _T]) -> _T:
    """Return the cached object of a kind if it has this key, else make and cache a new one."""
    if kind not in _last_of_each or _last_of_each[kind][0] != key:
        _last_of_each.pop(kind, None)  # first, so that the old and the new are never both in memory
        _last_of_each[kind] = (key, make())
    value: _T = _last_of_each[kind][1]
    return value


def _prepare(run: Run) -> _Prepared:
    model = run.model
    data = _data(run)
    tokenizer = _cached("tokenizer", model.key, lambda: load_tokenizer(model.home, model.revision))
    transfer = _transfer(run, data) if run.transfer_set else None
    encoded = _encoded(run, data, tokenizer)
    train_set: TokenRows | WithUnlabelled | None = None
    parts = [*encoded.values()]
    if data.train is not None:
        train_set = encoded[data.train.name]
    if transfer is not None and data.train is not None:
        train_set = _with_unlabelled(run, transfer, encoded[data.train.name], tokenizer)
        parts.append(train_set.unlabelled)
    loaded = _cached(
        "model",
        (model.key, run.task, run.is_evaluation_alone),
        lambda: _load(run, tokenizer),
    )
    loaded.require_fits(model.name, run.task.title, parts, width=_width(run))
    training = training_of(run.model)
    made = {} if training is None else {"training": asdict(training)}
    return _Prepared(data, transfer, train_set, tokenizer, encoded, loaded, made)


def _load(run: Run, tokenizer: Any) -> LoadedModel:
    if run.model.is_onnx:
        return load_file(run.model, run.task, tokenizer)
    return load_for_task(run.model, run.task, tokenizer, keeps_head=run.is_evaluation_alone)


def _data(run: Run) -> TaskData[Any]:
    """Return the task's data, refusing data that is not what the run was planned with."""
    limit, planned = run.settings.row["limit"], run.settings.task["data"]
    key = (run.task, run.data_dir, limit, run.data_revision, run.predict_test, planned)
    data = _cached("data", key, lambda: load_for_run(run))
    if data.content != planned:
        raise RunFailed(
            f"{data.source}: its data for {run.task.title} changed since the sweep began; rerun "
            "the command"
        )
    return data


def _transfer(run: Run, data: TaskData[Any]) -> TransferSet:
    """Return the run's transfer set, refusing texts that are not what the run was planned with."""
    key = (run.task, data.content, run.transfer_set)
    transfer: TransferSet = _cached(
        "transfer", key, lambda: read_transfer_set(run.task, run.transfer_set, data)
    )
    if transfer.facts.content != run.settings.task["inputs"]["transfer_set"]:
        names = ", ".join(file.name for file in run.transfer_set)
        raise RunFailed(f"{names}: its texts changed since the sweep began; rerun the command")
    return transfer


def _with_unlabelled(
    run: Run, transfer: TransferSet, labelled: TokenRows, tokenizer: Any
) -> WithUnlabelled:
    """Return the training split with the transfer set behind it: one object for all seeds."""
    lengths = _lengths(run)
    encode: Callable[..., TokenRows] = resolve(run.task.kind.encode)
    return _cached(
        "with unlabelled",
        (run.model.key, run.task, id(labelled), transfer.facts.content, tuple(lengths.items())),
        lambda: WithUnlabelled(labelled, encode(transfer.part, tokenizer, **lengths)),
    )


def _lengths(run: Run) -> dict[str, Any]:
    """Return the settings that the encoding of the run's kind takes."""
    return {name: run.settings.task["values"][name] for name in run.task.kind.lengths}


def _encoded(run: Run, data: TaskData[Any], tokenizer: Any) -> dict[str, TokenRows]:
    """Return the token ids of every split, by its name."""
    lengths = _lengths(run)
    encode: Callable[..., TokenRows] = resolve(run.task.kind.encode)
    return _cached(
        "encoded",
        (run.model.key, run.task, data.content, len(data.test), tuple(lengths.items())),
        lambda: {split.name: encode(split, tokenizer, **lengths) for split in data.splits},
    )


_BUILT_IN = {task.name for task in TASKS}


def _description(data: TaskData[Any], transfer: TransferSet | None) -> dict[str, Any]:
    """Return the part of a result that identifies its data."""
    return {
        "source": data.source,
        "revision": data.revision,
        "content": data.content,
        "examples": {split.name: len(split) for split in data.splits},
        "overlap": data.overlap,
        **({"name": data.name} if data.name else {}),
        **({"transfer_set": transfer.facts.record} if transfer is not None else {}),
        # Of a custom task nothing but its results tells others what it is called and scored by.
        **(
            {"title": data.task.title, "primary": list(data.task.primary)}
            if data.task.name not in _BUILT_IN
            else {}
        ),
    }
