"""One run's result with its provenance, and its JSON record. Imports no torch."""

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
    """The result of one run, with everything needed to trust or repeat it.

    Attributes:
        model: the fine-tuned model.
        task: the task's name.
        seed: the seed of the head's weights, the data order and dropout.
        settings: every setting that changes the score.
        score: the primary metric on the first evaluation split, at most 1; None where it is
            undefined (a correlation with constant predictions).
        scores: every metric by split; None where it is undefined.
        marks: caveats for the reader: "degenerate: one answer for all of validation", "epoch 2 of
            3, the best on dev".
        data: source, revision, content hash, number of examples by split, overlap of train and dev;
            `name` where the data has a name of its own, since it stands in for the task's data.
        provenance: code, libraries, hardware, threads, device; `seeds` are all seeds that the
            command asked for.
        times: seconds by stage.
        history: the training loss by step.
        finished: the time of completion in UTC, ISO 8601.
        predictions: name, size and sha256 of the predictions' file; filled in on saving.
        schema: the version of the record.
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
        """The path of its file under `runs/`, without the extension."""
        return f"{self.model.key}/{self.task}/{self.settings.hash}/seed-{self.seed}"


def _from_schema_1(record: Record) -> Record:
    """Upgrade schema 1, which did not record how a student was distilled."""
    model = record.get("model")
    return {**record, "model": {**model, "distilled": None}} if type(model) is dict else record


def _from_schema_2(record: Record) -> Record:
    """Upgrade schema 2, which recorded a student's teacher by name only."""
    model = record.get("model")
    added = {"weights": None, "teacher_weights": None}
    return {**record, "model": {**model, **added}} if type(model) is dict else record


UPGRADES: dict[int, Callable[[Record], Record]] = {1: _from_schema_1, 2: _from_schema_2}
"""Upgrades from each older schema to the next, applied in order."""

_DISTILLED = {**dict.fromkeys(("ablation", "init", "rest"), TEXT), "loss": Named(NUMBER)}
_MODEL = {
    **dict.fromkeys(("name", "slug", "digest", "source"), TEXT),
    **dict.fromkeys(("revision", "teacher", "weights", "teacher_weights"), TEXT_OR_NONE),
    "distilled": Optional(_DISTILLED),
}
_METHOD = {"name": TEXT, "factory": TEXT, "options": (dict,)}
# Open parts may hold anything, but the fields that tables read are checked where they are present:
# no file may make a table fail.
_SETTINGS = {
    "row": Open({"overrides": (dict,), "choose": TEXT, "method": Optional(_METHOD)}),
    "task": Open({"values": (dict,), "inputs": (dict,)}),
}
_DATA = Open(
    {
        **dict.fromkeys(("source", "content", "name"), TEXT),
        "revision": TEXT_OR_NONE,
        "overlap": COUNT,
    }
)
_PROVENANCE = Open(
    {
        **dict.fromkeys(("version", "device"), TEXT),
        "libraries": Named(TEXT),
        "threads": COUNT,
        "seeds": [COUNT],
    }
)
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
    """Return the result as plain data, ready for JSON."""
    return asdict(result)


def from_record(value: Any, known: Settings | None = None) -> TaskResult:
    """Return the result in a parsed JSON record, upgrading older schemas first.

    Args:
        value: the parsed JSON.
        known: the settings of another result, reused if they are equal: thousands of results share
            a few settings.

    Raises:
        ValueError: the record is invalid; the message is half a line.
    """
    record = _upgrade(value)
    require(record, _RESULT, "a result")
    _require_scores_in_range(record["score"], record["scores"])
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


def _upgrade(value: Any) -> Record:
    """Return a record in the current schema."""
    schema, record = version_of(value, SCHEMA, "a result"), value
    while schema < SCHEMA:
        if schema not in UPGRADES:
            raise ValueError(f"has schema {schema}, which never existed")
        record = {**UPGRADES[schema](record), "schema": schema + 1}
        schema += 1
    return dict(record)


def _require_scores_in_range(
    score: float | None, scores: Mapping[str, Mapping[str, float | None]]
) -> None:
    """Refuse scores beyond -1 and 1, such as percentages or 1e999, which JSON reads as infinity."""
    named = [("score", score)]
    named += [
        (f"scores.{split}.{metric}", value)
        for split, metrics in scores.items()
        for metric, value in metrics.items()
    ]
    for name, value in named:
        if value is not None and not -1 <= value <= 1:
            raise ValueError(f"{name} {value!r} is not between -1 and 1")
