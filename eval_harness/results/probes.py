"""Results of `probe`: a sealed record each, and beside it what was measured of every example.

    probes/<model>-<8 hex>/<probe>-<8 hex of its settings>.json
    and next to it its examples, <probe>-<...>.<8 hex of their content>.parquet

`probes/table.json` says what the last command compared: Table 0 shows that. Imports no torch.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from angels_share.errors import RunFailed
from angels_share.files import explain, hash_of, write_atomically, write_json
from eval_harness.results.record import MODEL, model_from, require_seal, sealed
from eval_harness.results.schema import (
    COUNT,
    NUMBER,
    TEXT,
    Named,
    NewerSchemaError,
    Open,
    Optional,
    not_finite,
    parsed,
    require,
    version_of,
)
from eval_harness.results.store import Invalid, InvalidResult, NewerResult
from eval_harness.runs.run import Model, Training, placeless
from eval_harness.tasks.registry import EntityMetric, LabelMetric

SCHEMA = 2
_SCHEMA_OF_LIST = 1
PROBES = "probes"
SHOWN = "table.json"

OF_TEXT, OF_PAIRS = "text", "pairs"
"""The probes that are no task's."""
_METRICS = {*get_args(LabelMetric), *get_args(EntityMetric)}

Examples = Mapping[str, NDArray[Any]]
"""What was measured of each example, by name; all columns have the same length."""


@dataclass(frozen=True)
class ProbeResult:
    """What one probe measured of one model.

    Attributes:
        model: the model.
        training: its pre-training: equal but for the seed in students that are one row of Table 0.
        probe: "text", "pairs", or the name of a task.
        settings: everything that changes a number: the data's content, the teacher, the seed.
        scores: the measures over all examples; None where one is undefined.
        facts: what the table says of the data and the model: names of files, numbers of examples.
        provenance: code, libraries, hardware, threads, device.
        seconds: the time that it took.
        finished: the time of completion in UTC, ISO 8601.
        examples: name, size and sha256 of the examples' file; filled in on saving; None where they
            are withheld.
        withheld: the same of examples that are not published, on purpose; else None.
        seal: the checksum of the record.
        schema: the version of the record.
    """

    model: Model
    training: Training | None
    probe: str
    settings: Mapping[str, Any]
    scores: Mapping[str, float | None]
    facts: Mapping[str, Any]
    provenance: Mapping[str, Any]
    seconds: float
    finished: str
    examples: Mapping[str, Any] | None = None
    withheld: Mapping[str, Any] | None = None
    seal: str | None = None
    schema: int = SCHEMA

    @property
    def saved_examples(self) -> Mapping[str, Any]:
        """Name, size and sha256 of a saved result's examples, published or withheld."""
        return self.examples or self.withheld or {}

    @property
    def key(self) -> str:
        """The path of its file under `probes/`, without the extension."""
        return key_of(self.model, self.probe, self.settings)


def key_of(model: Model, probe: str, settings: Mapping[str, Any]) -> str:
    """Return the path of a result's file under `probes/`, without the extension."""
    return f"{model.key}/{probe}-{hash_of(dict(settings))}"


@dataclass(frozen=True)
class Shown:
    """What a command compared, in its order.

    Attributes:
        models: for each model its results' keys by probe.
        teacher: the key of the teacher's folder, if there was one.
    """

    models: Sequence[Mapping[str, str]] = ()
    teacher: str | None = None


def write(root: Path, result: ProbeResult, examples: Examples) -> None:
    """Save a result, its examples first; what is there under the same key is replaced.

    Raises:
        RunFailed: a number is not finite.
    """
    path = root / PROBES / f"{result.key}.json"
    data = _to_parquet(examples)
    sha256 = hashlib.sha256(data).hexdigest()
    name = f"{path.stem}.{sha256[:8]}.parquet"
    saved = replace(
        result, examples={"name": name, "size": len(data), "sha256": sha256}, withheld=None
    )
    if fault := not_finite(asdict(saved)):
        raise RunFailed(f"{result.key}: {fault}: not saved")
    write_atomically(path.with_name(name), data)
    write_atomically(path, sealed(asdict(saved)))
    for old in path.parent.glob(f"{path.stem}.*.parquet"):
        if old.name != name:
            old.unlink()


def read(root: Path, key: str) -> ProbeResult:
    """Return a saved result; its examples are checked when they are read.

    Raises:
        InvalidResult: there is none, or it is not valid.
        NewerResult: a newer version wrote it; it must not be overwritten.
    """
    path = root / PROBES / f"{key}.json"
    try:
        text = path.read_bytes()
        result = _from_text(text)
        _require_place(result, key)
    except OSError as error:
        raise InvalidResult(path, explain(error)) from error
    except NewerSchemaError as error:
        raise NewerResult(path, str(error)) from error
    except ValueError as error:
        raise InvalidResult(path, " ".join(str(error).split())) from error
    return result


def read_all(root: Path) -> list[ProbeResult]:
    """Return all saved results, shown or not.

    Raises:
        InvalidResult: one is not valid.
    """
    files = sorted((root / PROBES).glob("*/*.json"))
    return [read(root, f"{path.parent.name}/{path.stem}") for path in files]


def read_examples(root: Path, result: ProbeResult) -> Examples:
    """Return the examples of a saved result.

    Raises:
        InvalidResult: they are withheld or missing, or not those that were saved with it.
    """
    path = (root / PROBES / result.key).with_name(str(result.saved_examples["name"]))
    if result.withheld:
        raise InvalidResult(path, "not published: the result says that they are withheld")
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != result.saved_examples["sha256"]:
            raise ValueError("is not what the result was saved with (sha256 differs)")  # noqa: TRY301
        return _from_parquet(data)
    except OSError as error:
        raise InvalidResult(path, explain(error)) from error
    except ValueError as error:
        raise InvalidResult(path, " ".join(str(error).split())) from error


def withhold(root: Path, result: ProbeResult) -> None:
    """Remove the examples of a saved result, which counts without them and says so.

    Raises:
        InvalidResult: the examples are not those of the result.
    """
    read_examples(root, result)
    path = root / PROBES / f"{result.key}.json"
    kept = replace(
        result,
        model=placeless(result.model),
        examples=None,
        withheld=result.examples,
        schema=SCHEMA,
    )
    write_atomically(path, sealed(asdict(kept)))
    path.with_name(str(result.saved_examples["name"])).unlink()


def write_shown(root: Path, shown: Shown) -> None:
    """Say what Table 0 shows from now on."""
    write_json(root / PROBES / SHOWN, {"schema": _SCHEMA_OF_LIST, **asdict(shown)})


def read_shown(root: Path) -> Shown | Invalid:
    """Return what Table 0 shows: nothing if nothing was probed yet."""
    path = root / PROBES / SHOWN
    try:
        record = parsed(path.read_bytes())
        version_of(record, _SCHEMA_OF_LIST, "a list of probes")
        shape = {"schema": COUNT, "models": [Named(TEXT)], "teacher": (str, NoneType)}
        require(record, shape, "a list of probes")
    except FileNotFoundError:
        return Shown()
    except OSError as error:
        return Invalid(f"{PROBES}/{SHOWN}", explain(error))
    except ValueError as error:
        return Invalid(f"{PROBES}/{SHOWN}", " ".join(str(error).split()))
    return Shown(tuple(record["models"]), record["teacher"])


_RESULT = {
    "schema": COUNT,
    "model": MODEL,
    "training": Optional({"group": TEXT, "seed": COUNT}),
    **dict.fromkeys(("probe", "finished"), TEXT),
    "seal": TEXT,
    "settings": (dict,),
    "scores": Named((*NUMBER, NoneType)),
    "facts": (dict,),
    "provenance": Open({"threads": COUNT, "device": TEXT}),
    "seconds": NUMBER,
    **dict.fromkeys(
        ("examples", "withheld"), Optional({"name": TEXT, "size": COUNT, "sha256": TEXT})
    ),
}


def _from_text(text: bytes) -> ProbeResult:
    saved = record = parsed(text)
    if version_of(record, SCHEMA, "a probe's result") == 1:  # which withheld nothing
        record = {**record, "withheld": None, "schema": SCHEMA}
    require(record, _RESULT, "a probe's result")
    require_seal(record["seal"], saved, text)
    if (record["examples"] is None) == (record["withheld"] is None):
        raise ValueError("examples are neither named nor withheld, or both")
    _require_settings(record["probe"], record["settings"])
    training = record["training"]
    return ProbeResult(
        **{
            **record,
            "model": model_from(record["model"]),
            "training": Training(**training) if training else None,
        }
    )


def _require_place(result: ProbeResult, key: str) -> None:
    """Refuse a result of another key, or one whose examples would be another file's."""
    if result.key != key:
        raise ValueError(f"belongs at {PROBES}/{result.key}.json")
    name = str(result.saved_examples["name"])
    stem, digest = key.rpartition("/")[2], str(result.saved_examples["sha256"])[:8]
    if name != f"{stem}.{digest}.parquet":
        raise ValueError(f"names {name!r} as its examples")


def _require_settings(probe: str, settings: Mapping[str, Any]) -> None:
    """Refuse settings without what a table reads of them."""
    if probe == OF_TEXT and type(settings.get("hidden")) is not float:
        raise ValueError("settings.hidden is no share of words")
    if probe not in (OF_TEXT, OF_PAIRS):
        measures = settings.get("measures")
        if type(measures) is not list or not measures or set(map(str, measures)) - _METRICS:
            raise ValueError("settings.measures are not a task's")


def _to_parquet(examples: Examples) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    stream = pa.BufferOutputStream()
    parquet.write_table(
        pa.table({name: pa.array(values) for name, values in examples.items()}), stream
    )
    return bytes(stream.getvalue())


def _from_parquet(data: bytes) -> Examples:
    import pyarrow as pa
    from pyarrow import parquet

    table = parquet.read_table(pa.BufferReader(data)).combine_chunks()
    return {
        name: np.asarray(table.column(name).to_numpy(zero_copy_only=False))
        for name in table.column_names
    }
