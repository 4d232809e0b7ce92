"""Sessions of `speed`: what was timed, where and how; their files. Imports no torch."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import EllipsisType, NoneType
from typing import Any

from angels_share.files import explain, hash_of, write_json
from eval_harness.results.record import NewerSchemaError, not_finite
from eval_harness.results.store import Invalid

SCHEMA = 2
SPEED = "speed"

_LARGEST = 1e15  # of any number here; larger ones would be no measurement, and stop a table
_SHORTEST = 1e-9  # seconds of a pass, likewise


@dataclass(frozen=True)
class Setup:
    """What was asked for: every setting that changes a time.

    Attributes:
        source: where the pairs are from, as a task's data says it; None where their ids are
            synthetic, of the lengths of STS-B's dev set.
        content: the hash of that data.
        pairs: how many were timed in a pass.
        full: whether these are the whole dev set.
        repeats: passes of each kind.
        seed: what the pairs were drawn with.
        max_seq_length: tokens that are read of a pair.
        threads: of each model's process, in turn.
        batch_sizes: in turn; 1 is among them.
        dtype: of weights and products.
    """

    source: str | None
    content: str | None
    pairs: int
    full: bool
    repeats: int
    seed: int
    max_seq_length: int
    threads: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Timing:
    """A model's times with so many threads and pairs in a batch.

    Attributes:
        threads: of its process.
        batch_size: pairs at once; those of like length together, but one by one as they come.
        passes: seconds of each repeat, over all pairs.
        p50: milliseconds that half of all batches of all repeats took at most.
        p90: nine in ten.
        p99: 99 in a hundred.
    """

    threads: int
    batch_size: int
    passes: tuple[float, ...]
    p50: float
    p90: float
    p99: float

    @property
    def seconds(self) -> float:
        """Of a pass: the median of the repeats."""
        return statistics.median(self.passes)


@dataclass(frozen=True)
class Timed:
    """A model and what was measured of it.

    Attributes:
        name: what it is called in tables.
        key: which model it is: the same weights, or the same config, have the same.
        random_weights: whether it was made of a config alone.
        parameters: of the body: embeddings, layers, and the pooler where there is one.
        with_head: and of the task's head.
        file_bytes: of its weights' files; None where there are none.
        peak_bytes: of its weights in memory, and the most that was taken above them at batch
            size 1; None where that can't be seen.
        timings: one for each number of threads and each batch size.
    """

    name: str
    key: str
    random_weights: bool
    parameters: int
    with_head: int
    file_bytes: int | None
    peak_bytes: int | None
    timings: tuple[Timing, ...]

    def timing(self, threads: int, batch_size: int = 1) -> Timing:
        """One of them."""
        return next(
            each
            for each in self.timings
            if (each.threads, each.batch_size) == (threads, batch_size)
        )


@dataclass(frozen=True)
class Machine:
    """What decides how long the same work takes."""

    processor: str
    cores: int
    system: str
    device: str


@dataclass(frozen=True)
class Session:
    """Models that were timed in turn, on one machine: only such times can be compared.

    Attributes:
        models: those; the first is what the others are compared with.
        setup: what was asked for.
        machine: where.
        version: of this code.
        commit: of it, where it is a checkout.
        libraries: their versions.
        environment: variables that tell threads how to wait for one another.
        load: how many processes wanted a core when it began: above 0, it was shared.
        finished: when, in UTC, ISO 8601.
        waited: the share of the passes' time that a model's threads waited for a core which
            others had, of the model that waited most; None where the system doesn't tell.
        schema: the version of this record.
    """

    models: tuple[Timed, ...]
    setup: Setup
    machine: Machine
    version: str
    commit: str | None
    libraries: Mapping[str, str]
    environment: Mapping[str, str]
    load: float
    finished: str
    waited: float | None = None
    schema: int = SCHEMA

    @property
    def key(self) -> str:
        """The name of its file: the same models, setup and machine take the older one's place."""
        models = [model.key for model in self.models]
        asked = {"models": models, "setup": asdict(self.setup), "machine": asdict(self.machine)}
        return hash_of(asked)


@dataclass(frozen=True)
class Ratio:
    """How many times faster a model is than its session's first: the ratio of their medians.

    Attributes:
        value: the ratio.
        low: the lowest of the repeats' own.
        high: the highest.
    """

    value: float
    low: float
    high: float


def ratio(first: Timing, other: Timing) -> Ratio:
    """One model's time over another's of the same session; repeats are compared in pairs."""
    each = [ours / theirs for ours, theirs in zip(first.passes, other.passes, strict=True)]
    return Ratio(first.seconds / other.seconds, min(each), max(each))


@dataclass(frozen=True)
class Speeds:
    """The sessions of a results folder, the oldest first, and the files that are none."""

    sessions: Sequence[Session] = ()
    invalid: Sequence[Invalid] = ()


def write_session(root: Path | str, session: Session) -> Path:
    """Saves a session, whole or not at all."""
    return write_json(Path(root) / SPEED / f"{session.key}.json", asdict(session))


def find_speeds(root: Path | str) -> Speeds:
    """Every session under a results folder, and every file there that isn't one."""
    sessions, invalid = [], []
    for path in sorted((Path(root) / SPEED).glob("[!.]*.json")):
        try:
            session = from_record(_parsed(path))
            if path.name != f"{session.key}.json":
                raise ValueError(f"says that it is {session.key}.json")  # noqa: TRY301
            sessions.append(session)
        except OSError as error:
            invalid.append(Invalid(f"{SPEED}/{path.name}", explain(error)))
        except (ValueError, RecursionError) as error:
            invalid.append(Invalid(f"{SPEED}/{path.name}", " ".join(str(error).split())))
    sessions.sort(key=lambda session: (session.finished, session.key))
    return Speeds(tuple(sessions), tuple(invalid))


def _parsed(path: Path) -> Any:
    """JSON's value; half a character, which JSON can spell, could be written in no table."""
    try:
        value = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise ValueError(f"is torn: line {error.lineno}: {error.msg}") from error
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("holds half a character (a lone surrogate)") from error
    return value


_Kinds = tuple[type, ...]
_TEXT, _COUNT, _FLAG = (str,), (int,), (bool,)
_NUMBER: _Kinds = (int, float)
_NAMED_TEXTS: dict[EllipsisType, _Kinds] = {...: _TEXT}
"""Any names, each with a text."""

_SESSION: dict[str, Any] = {
    "schema": _COUNT,
    "models": [
        {
            "name": _TEXT,
            "key": _TEXT,
            "random_weights": _FLAG,
            "parameters": _COUNT,
            "with_head": _COUNT,
            "file_bytes": (int, NoneType),
            "peak_bytes": (int, NoneType),
            "timings": [
                {
                    **dict.fromkeys(("threads", "batch_size"), _COUNT),
                    **dict.fromkeys(("p50", "p90", "p99"), _NUMBER),
                    "passes": [_NUMBER],
                }
            ],
        }
    ],
    "setup": {
        **dict.fromkeys(("source", "content"), (str, NoneType)),
        **dict.fromkeys(("pairs", "repeats", "seed", "max_seq_length"), _COUNT),
        "full": _FLAG,
        "threads": [_COUNT],
        "batch_sizes": [_COUNT],
        "dtype": _TEXT,
    },
    "machine": {"cores": _COUNT, **dict.fromkeys(("processor", "system", "device"), _TEXT)},
    "version": _TEXT,
    "commit": (str, NoneType),
    "libraries": _NAMED_TEXTS,
    "environment": _NAMED_TEXTS,
    "load": _NUMBER,
    "waited": (*_NUMBER, NoneType),
    "finished": _TEXT,
}


def from_record(read: Any) -> Session:
    """A session from JSON's value.

    Raises:
        ValueError: what is wrong with it, in half a line.
    """
    if type(read) is not dict or type(read.get("schema")) is not int:
        raise ValueError("is not a session: it has no schema")
    if read["schema"] > SCHEMA:
        raise NewerSchemaError(
            f"was written by a newer version (schema {read['schema']}, known up to {SCHEMA}): "
            "update"
        )
    if read["schema"] < SCHEMA:
        raise ValueError(f"has schema {read['schema']}, which is no longer read: time it again")
    _require(read, _SESSION, "")
    if found := not_finite(read):
        raise ValueError(found)
    setup = _as_tuples(read["setup"])
    models = tuple(map(_timed, read["models"]))
    session = Session(
        **{**read, "models": models, "setup": Setup(**setup), "machine": Machine(**read["machine"])}
    )
    _require_whole(session)
    return session


def _timed(record: Mapping[str, Any]) -> Timed:
    timings = tuple(Timing(**_as_tuples(each)) for each in record["timings"])
    return Timed(**{**record, "timings": timings})


def _as_tuples(record: Mapping[str, Any]) -> dict[str, Any]:
    """The same with tuples in the place of JSON's lists."""
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in record.items()
    }


def _require(value: Any, kind: Any, where: str) -> None:
    """Exactly these fields, of exactly these types: JSON's true is no number here."""
    if isinstance(kind, tuple):
        if type(value) not in kind:
            raise ValueError(f"{where} is a {type(value).__name__}")
        if type(value) in _NUMBER and not 0 <= value < _LARGEST:
            raise ValueError(f"{where} {value!r:.40} is no measurement")
        return
    if type(value) is not type(kind):
        raise ValueError(f"{where} is a {type(value).__name__}")
    if isinstance(kind, list):
        for number, each in enumerate(value):
            _require(each, kind[0], f"{where}[{number}]")
        return
    inside = f"{where}.".lstrip(".")
    if ... not in kind and (odd := sorted(value.keys() ^ kind.keys())):
        said = "missing" if odd[0] in kind else "no field of a session"
        raise ValueError(f"{inside}{odd[0]} is {said}")
    for name, each in value.items():
        _require(each, kind[name] if name in kind else kind[...], f"{inside}{name}")


def _require_whole(session: Session) -> None:
    """Every model with every timing that was asked for: a table reads them all."""
    setup = session.setup
    wanted = {(threads, size) for threads in setup.threads for size in setup.batch_sizes}
    if not session.models or not setup.threads or 1 not in setup.batch_sizes or not setup.pairs:
        raise ValueError("is a session in which nothing was timed at batch size 1")
    for model in session.models:
        found = [(each.threads, each.batch_size) for each in model.timings]
        if len(found) != len(wanted) or set(found) != wanted:
            raise ValueError(f"the timings of {model.name} are not those of its setup")
        for each in model.timings:
            if len(each.passes) != setup.repeats or min(each.passes, default=0) < _SHORTEST:
                raise ValueError(f"the passes of {model.name} are not {setup.repeats} times")
