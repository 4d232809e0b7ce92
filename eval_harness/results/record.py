"""One run's result with its provenance, and its sealed JSON record. Imports no torch.

The seal is the sha256 of the record without it, as JSON in the file's own layout. It shows damage
and slips, not intent: the proof of a score is the predictions beside it.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import NoneType
from typing import Any

from eval_harness.results.schema import (
    COUNT,
    FLAG,
    NUMBER,
    TEXT,
    TEXT_OR_NONE,
    Named,
    Open,
    Optional,
    Record,
    parsed,
    require,
    version_of,
)
from eval_harness.runs.run import Distilled, Model, Settings
from eval_harness.tasks.perplexity import is_of_perplexity

SCHEMA = 4


@dataclass(frozen=True)
class TaskResult:
    """The result of one run, with everything needed to trust or repeat it.

    Attributes:
        model: the fine-tuned model.
        task: the task's name.
        seed: the seed of the head's weights, the data order and dropout.
        settings: every setting that changes the score.
        score: the primary metric on the first evaluation split, or the mean over all of them for
            a task that averages (XNLI's languages), at most 1; of a text the perplexity by token;
            None where it is undefined (a correlation with constant predictions).
        scores: every metric by split; None where it is undefined.
        marks: caveats for the reader: "degenerate: one answer for all of validation", "epoch 2 of
            3, the best on dev".
        data: source, revision, content hash, number of examples by split, overlap of train and dev;
            `name` where the data has a name of its own, since it stands in for the task's data;
            `title` of a custom task; `transfer_set` where texts without labels were learned from.
        provenance: code, libraries, hardware, threads, device; `seeds` are all seeds that the
            command asked for.
        times: seconds by stage.
        history: the training loss by step.
        finished: the time of completion in UTC, ISO 8601.
        predictions: name, size and sha256 of the predictions' file; filled in on saving; None
            where they are withheld.
        withheld: the same of predictions that are not published, on purpose; else None.
        replaces: whether another file was in its place when it was saved: it was made again, so
            older files with other scores don't contradict it.
        seal: the checksum of the record; None where an earlier version saved it, without one.
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
    withheld: Mapping[str, Any] | None = None
    replaces: bool = False
    seal: str | None = None
    schema: int = SCHEMA

    @property
    def saved_predictions(self) -> Mapping[str, Any]:
        """Name, size and sha256 of a saved result's predictions, published or withheld."""
        return self.predictions or self.withheld or {}

    @property
    def key(self) -> str:
        """The path of its file under `runs/`, without the extension."""
        return f"{self.model.key}/{self.task}/{self.settings.hash}/seed-{self.seed}"


def texts_added(result: TaskResult) -> int:
    """Return how many texts without labels a run learned from beside the labelled ones."""
    return int(result.data.get("transfer_set", {}).get("texts", 0))


def _from_schema_1(record: Record) -> Record:
    """Upgrade schema 1, which did not record how a student was distilled."""
    model = record.get("model")
    return {**record, "model": {**model, "distilled": None}} if type(model) is dict else record


def _from_schema_2(record: Record) -> Record:
    """Upgrade schema 2, which recorded a student's teacher by name only."""
    model = record.get("model")
    added = {"weights": None, "teacher_weights": None}
    return {**record, "model": {**model, **added}} if type(model) is dict else record


def _from_schema_3(record: Record) -> Record:
    """Upgrade schema 3, which had no seal and withheld nothing."""
    added = {"seal": None, "withheld": None, "replaces": False}
    if odd := sorted(record.keys() & added.keys()):  # a sealed record that lost its version
        raise ValueError(f"{odd[0]} is no field of a result of schema 3 or earlier")
    return {**record, **added}


UPGRADES: dict[int, Callable[[Record], Record]] = {
    1: _from_schema_1,
    2: _from_schema_2,
    3: _from_schema_3,
}
"""Upgrades from each older schema to the next, applied in order."""

_DISTILLED = {**dict.fromkeys(("ablation", "init", "rest"), TEXT), "loss": Named(NUMBER)}
MODEL = {
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
        **dict.fromkeys(("source", "content", "name", "title"), TEXT),
        "revision": TEXT_OR_NONE,
        "overlap": COUNT,
        "primary": [TEXT],
        "transfer_set": {
            "files": [Open(dict.fromkeys(("name", "sha256", "revision"), TEXT))],
            "texts": COUNT,
            "dropped": Named(COUNT),
            "content": TEXT,
        },
    }
)
_PROVENANCE = Open(
    {
        **dict.fromkeys(("version", "device"), TEXT),
        "libraries": Named(TEXT),
        "threads": COUNT,
        "seeds": [COUNT],
        "training": {"group": TEXT, "seed": COUNT},
    }
)
_PREDICTIONS = {"name": TEXT, "size": COUNT, "sha256": TEXT}
_RESULT = {
    **dict.fromkeys(("schema", "seed"), COUNT),
    **dict.fromkeys(("task", "finished"), TEXT),
    "model": MODEL,
    "settings": _SETTINGS,
    "score": (*NUMBER, NoneType),
    "scores": Named(Named((*NUMBER, NoneType))),
    "marks": [TEXT],
    "data": _DATA,
    "provenance": _PROVENANCE,
    "times": (dict,),
    "history": (list,),
    **dict.fromkeys(("predictions", "withheld"), Optional(_PREDICTIONS)),
    "replaces": FLAG,
    "seal": TEXT_OR_NONE,
}


def to_record(result: TaskResult) -> Record:
    """Return the result as plain data, ready for JSON."""
    return asdict(result)


def to_text(result: TaskResult) -> str:
    """Return the content of a result's file: its record in the current schema, sealed."""
    return sealed(to_record(replace(result, schema=SCHEMA)))


def sealed(record: Record) -> str:
    """Return a record as JSON, with a seal of its own in place of any that it has."""
    bare = {name: value for name, value in record.items() if name != _SEAL}
    return _layout({**bare, _SEAL: _sha256(_layout(bare).encode())})


def from_text(text: bytes, known: Settings | None = None) -> TaskResult:
    """Return the result in a file's content, whose seal is checked if it has one.

    Args:
        text: the content of the file.
        known: as in `from_record`.

    Raises:
        ValueError: the record is invalid, or not the one that was sealed; the message is half a
            line.
    """
    record = parsed(text)
    result = from_record(record, known)
    if result.seal is not None:
        require_seal(result.seal, record, text)
    return result


_SEAL = "seal"


def _layout(record: Record) -> str:
    text = json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return text + "\n"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def require_seal(seal: str, record: Record, text: bytes) -> None:
    """Refuse a record that is not the one that was sealed.

    Args:
        seal: the seal that the record has.
        record: the parsed JSON.
        text: the file's content.

    Raises:
        ValueError: the record was altered.
    """
    # A file as it was saved is what was sealed plus the seal's line: thousands are checked this
    # way. One that another program laid out anew is as good if its record is the same.
    before, _, after = text.partition(f'\n "{_SEAL}": "{seal}",'.encode())
    if _sha256(before + after) == seal:
        return
    bare = {name: value for name, value in record.items() if name != _SEAL}
    if _sha256(_layout(bare).encode()) != seal:
        raise ValueError("was altered after it was saved (its checksum differs)")


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
    if record["seal"] is None and value["schema"] == SCHEMA:
        raise ValueError("seal is a NoneType")
    if (record["predictions"] is None) == (record["withheld"] is None):
        raise ValueError("predictions are neither named nor withheld, or both")
    _require_scores_in_range(record["score"], record["scores"])
    settings = Settings(**record["settings"])
    return TaskResult(
        **{
            **record,
            "model": model_from(record["model"]),
            "settings": known if known is not None and settings == known else settings,
            "marks": tuple(record["marks"]),
            "history": tuple(record["history"]),
        }
    )


def model_from(record: Record) -> Model:
    """Return the model in a record."""
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
    """Refuse scores beyond -1 and 1, such as percentages or 1e999, which JSON reads as infinity.

    Perplexities, whose names tell them, are above 0 and finite.
    """
    are_shares = not any(map(is_of_perplexity, scores.values()))
    named = [("score", score)]
    named += [
        (f"scores.{split}.{metric}", value)
        for split, metrics in scores.items()
        for metric, value in metrics.items()
    ]
    for name, value in named:
        if value is None:
            continue
        if are_shares and not -1 <= value <= 1:
            raise ValueError(f"{name} {value!r} is not between -1 and 1")
        if not 0 <= value < math.inf and not are_shares:
            raise ValueError(f"{name} {value!r} is no perplexity")
