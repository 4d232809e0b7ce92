"""Results: typed, with their provenance; what they look like in files. Imports no torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import NoneType
from typing import Any

from eval_harness.results.schema import (
    COUNT,
    NUMBER,
    TEXT,
    TEXT_OR_NONE,
    Named,
    Open,
    Optional,
    Record,
    require,
    version_of,
)
from eval_harness.runs.run import Distilled, Model, Settings

SCHEMA = 3


@dataclass(frozen=True)
class TaskResult:
    """What one run gave, and all that one must know to trust or repeat it.

    Attributes:
        model: what was judged.
        task: the task's name.
        seed: of head, order and dropout.
        settings: every setting that changes the number.
        score: the primary score from 0 to 1 on the first evaluated split; None where it is not
            defined (a correlation with constant predictions).
        scores: every measure by split, None where it is not defined.
        marks: what a reader must know of this run: "degenerate", "best of 3 epochs on dev".
        data: source, revision, content hash, number of examples by split, overlap of train and dev;
            `name` where the data have one of their own, since they stand in for others.
        provenance: code, libraries, hardware, threads, device, dtype; `seeds`, where a sweep made
            it, are all that the sweep was asked for.
        times: seconds by stage.
        history: the training loss by step.
        finished: when, in UTC, ISO 8601.
        predictions: name, size and sha256 of the file beside it; filled in when it is saved.
        schema: the version of this record.
    """

    model: Model
    task: str
    seed: int
    settings: Settings
    score: float | None
    scores: Mapping[str, Mapping[str, float | None]]
    marks: Sequence[str]
    data: Mapping[str, Any]
    provenance: Mapping[str, Any]
    times: Mapping[str, float]
    history: Sequence[Mapping[str, float]]
    finished: str
    predictions: Mapping[str, Any] | None = None
    schema: int = SCHEMA

    @property
    def key(self) -> str:
        """Where it lies under `runs/`, without the ending."""
        return f"{self.model.key}/{self.task}/{self.settings.hash}/seed-{self.seed}"


def _without_distillation(record: Record) -> Record:
    """Schema 1 didn't say how a student was made."""
    model = record.get("model")
    return {**record, "model": {**model, "distilled": None}} if type(model) is dict else record


def _without_weights(record: Record) -> Record:
    """Schema 2 knew a student's teacher by its name alone."""
    model = record.get("model")
    added = {"weights": None, "teacher_weights": None}
    return {**record, "model": {**model, **added}} if type(model) is dict else record


UPGRADES: dict[int, Callable[[Record], Record]] = {1: _without_distillation, 2: _without_weights}
"""From each older schema to the next one; a record passes through as many as it needs."""

_DISTILLED = {**dict.fromkeys(("ablation", "init", "rest"), TEXT), "loss": Named(NUMBER)}
_MODEL = {
    **dict.fromkeys(("name", "slug", "digest", "source"), TEXT),
    **dict.fromkeys(("revision", "teacher", "weights", "teacher_weights"), TEXT_OR_NONE),
    "distilled": Optional(_DISTILLED),
}
_METHOD = {"name": TEXT, "factory": TEXT, "options": (dict,)}
# Of the open parts what tables read, wherever it is there: no file can stop a table.
_SETTINGS = {
    "row": Open({"overrides": (dict,), "choose": TEXT, "method": Optional(_METHOD)}),
    "task": Open({"values": (dict,), "inputs": (dict,)}),
}
_DATA = Open({
    **dict.fromkeys(("source", "content", "name"), TEXT),
    "revision": TEXT_OR_NONE,
    "overlap": COUNT,
})  # fmt: skip
_PROVENANCE = Open({
    **dict.fromkeys(("version", "device"), TEXT),
    "libraries": Named(TEXT),
    "threads": COUNT,
    "seeds": [COUNT],
})  # fmt: skip
_RESULT = {
    **dict.fromkeys(("schema", "seed"), COUNT),
    **dict.fromkeys(("task", "finished"), TEXT),
    "model": _MODEL,
    "settings": _SETTINGS,
    "score": (*NUMBER, NoneType),
    "scores": Named(Named((*NUMBER, NoneType))),
    "marks": [TEXT],
    "data": _DATA,
    "provenance": _PROVENANCE,
    "times": (dict,),
    "history": (list,),
    "predictions": {"name": TEXT, "size": COUNT, "sha256": TEXT},
}


def to_record(result: TaskResult) -> Record:
    """Plain data, as it is written."""
    return asdict(result)


def from_record(read: Any, known: Settings | None = None) -> TaskResult:
    """A result from JSON's value; older schemas are upgraded first.

    Args:
        read: JSON's value.
        known: the settings of another result, which stand in the place of equal ones: thousands of
            results share a few.

    Raises:
        ValueError: what is wrong with it, in half a line.
    """
    record = _upgraded(read)
    require(record, _RESULT, "a result")
    _require_shares(record["score"], record["scores"])
    settings = Settings(**record["settings"])
    return TaskResult(
        **{
            **record,
            "model": _model(record["model"]),
            "settings": known if known is not None and settings == known else settings,
            "marks": tuple(record["marks"]),
            "history": tuple(record["history"]),
        }
    )


def _model(record: Record) -> Model:
    distilled = record["distilled"]
    return Model(**{**record, "distilled": Distilled(**distilled) if distilled else None})


def _upgraded(read: Any) -> Record:
    """Return a record in today's schema, through as many upgrades as it needs."""
    schema, record = version_of(read, SCHEMA, "a result"), read
    while schema < SCHEMA:
        if schema not in UPGRADES:
            raise ValueError(f"schema {schema} never was")
        record = {**UPGRADES[schema](record), "schema": schema + 1}
        schema += 1
    return dict(record)


def _require_shares(score: float | None, scores: Mapping[str, Mapping[str, float | None]]) -> None:
    """Refuse scores beyond -1 and 1: a percentage or 1e999 would pass for a number otherwise."""
    named = [("score", score)]
    named += [
        (f"scores.{split}.{name}", value)
        for split, measures in scores.items()
        for name, value in measures.items()
    ]
    for name, value in named:
        if value is not None and not -1 <= value <= 1:
            raise ValueError(f"{name} {value!r} is not between -1 and 1")
