"""Results: typed, with their provenance; what they look like in files. Imports no torch."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import NoneType
from typing import Any

from eval_harness.runs.run import Distilled, Model, Settings

SCHEMA = 3


class NewerSchemaError(ValueError):
    """A record of a version of this program that is still to come."""


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


Record = dict[str, Any]


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

_Kinds = tuple[type, ...]
_NUMBER: _Kinds = (int, float)
_RESULT: dict[str, _Kinds] = {
    "schema": (int,),
    "model": (dict,),
    "task": (str,),
    "seed": (int,),
    "settings": (dict,),
    "score": (*_NUMBER, NoneType),
    "scores": (dict,),
    "marks": (list,),
    "data": (dict,),
    "provenance": (dict,),
    "times": (dict,),
    "history": (list,),
    "finished": (str,),
    "predictions": (dict,),
}
_MODEL: dict[str, _Kinds] = {
    **dict.fromkeys(("name", "slug", "digest", "source"), (str,)),
    **dict.fromkeys(("revision", "teacher", "weights", "teacher_weights"), (str, NoneType)),
    "distilled": (dict, NoneType),
}
_DISTILLED: dict[str, _Kinds] = {
    **dict.fromkeys(("ablation", "init", "rest"), (str,)),
    "loss": (dict,),
}
_SETTINGS: dict[str, _Kinds] = {"row": (dict,), "task": (dict,)}
_PREDICTIONS: dict[str, _Kinds] = {"name": (str,), "size": (int,), "sha256": (str,)}
_METHOD: dict[str, _Kinds] = {"name": (str,), "factory": (str,), "options": (dict,)}

# What the tables read of the open parts, wherever it is there.
_ROW: dict[str, _Kinds] = {"overrides": (dict,), "choose": (str,), "method": (dict, NoneType)}
_TASK: dict[str, _Kinds] = {"values": (dict,), "inputs": (dict,)}
_DATA: dict[str, _Kinds] = {
    "source": (str,),
    "revision": (str, NoneType),
    "content": (str,),
    "overlap": (int,),
    "name": (str,),
}
_PROVENANCE: dict[str, _Kinds] = {
    "version": (str,),
    "libraries": (dict,),
    "threads": (int,),
    "device": (str,),
    "seeds": (list,),
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
    _require(record, _RESULT, "")
    _require(record["model"], _MODEL, "model.")
    _require(record["settings"], _SETTINGS, "settings.")
    _require(record["predictions"], _PREDICTIONS, "predictions.")
    _require_scores(record["score"], record["scores"])
    _require_open_parts(record)
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
    if (distilled := record["distilled"]) is None:
        return Model(**record)
    _require(distilled, _DISTILLED, "model.distilled.")
    for name, weight in distilled["loss"].items():
        if type(weight) not in _NUMBER:
            raise ValueError(f"model.distilled.loss.{name} is a {type(weight).__name__}")
    return Model(**{**record, "distilled": Distilled(**distilled)})


def _require_open_parts(record: Record) -> None:
    """What a table reads of the parts that may hold anything, so that no file can stop a table."""
    row, provenance = record["settings"]["row"], record["provenance"]
    _require_kinds(row, _ROW, "settings.row.")
    _require_kinds(record["settings"]["task"], _TASK, "settings.task.")
    _require_kinds(record["data"], _DATA, "data.")
    _require_kinds(provenance, _PROVENANCE, "provenance.")
    if row.get("method") is not None:
        _require(row["method"], _METHOD, "settings.row.method.")
    _require_each(record["marks"], str, "marks")
    _require_each(provenance.get("seeds", ()), int, "provenance.seeds")
    _require_each(provenance.get("libraries", {}).values(), str, "provenance.libraries")


def _require_kinds(record: Record, kinds: Mapping[str, _Kinds], where: str) -> None:
    for name, allowed in kinds.items():
        if name in record and type(record[name]) not in allowed:
            raise ValueError(f"{where}{name} is a {type(record[name]).__name__}")


def _require_each(values: Iterable[Any], kind: type, where: str) -> None:
    for value in values:
        if type(value) is not kind:
            raise ValueError(f"{where} holds a {type(value).__name__}")


def _upgraded(read: Any) -> Record:
    if type(read) is not dict or type(read.get("schema")) is not int:
        raise ValueError("is not a result: it has no schema")
    record: Record = read
    if record["schema"] > SCHEMA:
        raise NewerSchemaError(
            f"was written by a newer version (schema {record['schema']}, known up to {SCHEMA}): "
            "update"
        )
    while record["schema"] < SCHEMA:
        if record["schema"] not in UPGRADES:
            raise ValueError(f"schema {record['schema']} never was")
        record = {**UPGRADES[record["schema"]](record), "schema": record["schema"] + 1}
    return record


def _require(record: Record, kinds: Mapping[str, _Kinds], where: str) -> None:
    """Exactly these fields, of exactly these types: JSON's true is not a number here."""
    if record.keys() != kinds.keys():
        raise ValueError(_odd_field(record, kinds, where))
    _require_kinds(record, kinds, where)


def _odd_field(record: Record, kinds: Mapping[str, _Kinds], where: str) -> str:
    if missing := sorted(kinds.keys() - record.keys()):
        return f"{where}{missing[0]} is missing"
    return f"{where}{min(record.keys() - kinds.keys())} is no field of a result"


def _require_scores(score: float | None, scores: Record) -> None:
    """Shares from -1 to 1: a percentage or 1e999 would pass for a number otherwise."""
    if not _is_share(score):
        raise ValueError(f"score {score} is not between -1 and 1")
    for split, measures in scores.items():
        if type(measures) is not dict:
            raise ValueError(f"scores.{split} is a {type(measures).__name__}")
        for name, value in measures.items():
            if not _is_share(value):
                raise ValueError(f"scores.{split}.{name} {value!r} is not between -1 and 1")


def _is_share(value: Any) -> bool:
    return value is None or (type(value) in _NUMBER and -1 <= value <= 1)


def not_finite(value: Any, where: str = "") -> str | None:
    """The path of the first NaN or infinity in plain data, and what stands there."""
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{where} is {value}"
    if isinstance(value, Mapping):
        inside = ((f"{where}.{name}" if where else str(name), each) for name, each in value.items())
    elif isinstance(value, list | tuple):
        inside = ((f"{where}[{number}]", each) for number, each in enumerate(value))
    else:
        return None
    return next(filter(None, (not_finite(each, path) for path, each in inside)), None)
