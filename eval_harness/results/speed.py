"""Timing sessions of `speed`, and their JSON files. Imports no torch."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from angels_share.files import explain, hash_of, write_json
from eval_harness.results.schema import (
    COUNT,
    FLAG,
    NUMBER,
    TEXT,
    TEXT_OR_NONE,
    Named,
    parsed,
    require,
    version_of,
)
from eval_harness.results.store import NO_FILE, Invalid

SCHEMA = 4
_OLDEST = 2
"""The oldest schema that is read."""
SPEED = "speed"

# Numbers beyond these are no measurements, and would make a table overflow or divide by zero.
_LARGEST = 1e15
_SHORTEST_PASS = 1e-9  # seconds


@dataclass(frozen=True)
class Setup:
    """Every setting that changes a time.

    Attributes:
        source: the source of the pairs, as in a result's data; None where the token ids are
            synthetic, with the lengths of STS-B's dev set.
        content: the hash of that data.
        pairs: number of pairs in a pass.
        full: whether a pass covers the whole dev set.
        repeats: passes for each number of threads and batch size.
        seed: the seed that the pairs were drawn with.
        max_seq_length: maximum sequence length of a pair in tokens.
        threads: numbers of CPU threads per process, timed in turn.
        batch_sizes: pairs per batch, timed in turn; 1 is among them.
        dtype: the type of weights and activations.
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
    """A model's times for one number of threads and one batch size.

    Attributes:
        threads: CPU threads of its process.
        batch_size: pairs per batch; sorted by length, except at batch size 1.
        passes: seconds of each repeat, over all pairs.
        p50: the median time of a batch over all repeats, in milliseconds.
        p90: its 90th percentile.
        p99: its 99th percentile.
    """

    threads: int
    batch_size: int
    passes: tuple[float, ...]
    p50: float
    p90: float
    p99: float

    @property
    def seconds(self) -> float:
        """The median time of a pass."""
        return statistics.median(self.passes)


@dataclass(frozen=True)
class Timed:
    """A model and its measurements.

    Attributes:
        name: its name in tables.
        key: its identity: equal for the same weights, or for the same config.
        random_weights: whether it was built from a config alone.
        parameters: parameters of the body: embeddings, layers, and the pooler if it has one.
        with_head: parameters including the task's head.
        file_bytes: size of its weight files; None where there are none.
        file_dtype: the types of the numbers in these, "float32"; None where there are none, or an
            earlier version recorded none.
        peak_bytes: its weights in memory plus the peak above them at batch size 1; None where the
            system does not tell.
        timings: one for each number of threads and each batch size.
        backend: what computed it: torch, or onnxruntime a file in float32 or int8.
    """

    name: str
    key: str
    random_weights: bool
    parameters: int
    with_head: int
    file_bytes: int | None
    peak_bytes: int | None
    timings: tuple[Timing, ...]
    file_dtype: str | None = None
    backend: str = "torch"

    def timing(self, threads: int, batch_size: int = 1) -> Timing:
        """Return the timing for a number of threads and a batch size."""
        return next(
            timing
            for timing in self.timings
            if (timing.threads, timing.batch_size) == (threads, batch_size)
        )


@dataclass(frozen=True)
class Machine:
    """The hardware and system that times depend on."""

    processor: str
    cores: int
    system: str
    device: str


@dataclass(frozen=True)
class Session:
    """Models that were timed in turn on one machine; only times of one session are comparable.

    Attributes:
        models: the models; the others are compared with the first.
        setup: the settings that they were timed with.
        machine: the machine that they were timed on.
        version: the version of this package.
        commit: its git commit, if it is a checkout.
        libraries: versions of the libraries.
        environment: environment variables that decide how threads wait for each other.
        load: the load average at the beginning: above 0, the machine was shared.
        finished: the time of completion in UTC, ISO 8601.
        waited: the share of its passes' time that a model's threads waited for a core taken by
            other processes, the highest of all models; None where the system does not tell.
        schema: the version of the record.
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
    processor_flags: tuple[str, ...] = ()
    schema: int = SCHEMA

    @property
    def key(self) -> str:
        """The name of its file: a session replaces one of the same models, setup and machine."""
        models = [model.key for model in self.models]
        return hash_of(
            {"models": models, "setup": asdict(self.setup), "machine": asdict(self.machine)}
        )


@dataclass(frozen=True)
class Ratio:
    """The speedup of a model over the first of its session.

    Attributes:
        value: the ratio of the median times.
        low: the lowest ratio within a repeat.
        high: the highest ratio within a repeat.
    """

    value: float
    low: float
    high: float


def ratio(first: Timing, other: Timing) -> Ratio:
    """Return how many times faster `other` is than `first`, in total and within each repeat."""
    by_repeat = [mine / its for mine, its in zip(first.passes, other.passes, strict=True)]
    return Ratio(first.seconds / other.seconds, min(by_repeat), max(by_repeat))


@dataclass(frozen=True)
class Speeds:
    """The sessions of a results folder, oldest first, and the files that are not valid sessions."""

    sessions: Sequence[Session] = ()
    invalid: Sequence[Invalid] = ()


def write_session(root: Path | str, session: Session) -> Path:
    """Write a session's file atomically and return its path."""
    return write_json(Path(root) / SPEED / f"{session.key}.json", asdict(session))


def find_speeds(root: Path | str) -> Speeds:
    """Load all sessions of a results folder, and name the files that are not valid sessions."""
    sessions, invalid = [], []
    for path in sorted((Path(root) / SPEED).glob("[!.]*.json")):
        if path.exists() and not (path.is_file() or path.is_dir()):
            invalid.append(Invalid(f"{SPEED}/{path.name}", NO_FILE))
            continue
        try:
            session = from_record(parsed(path.read_bytes()))
            if path.name != f"{session.key}.json":
                raise ValueError(f"says that it is {session.key}.json")  # noqa: TRY301
            sessions.append(session)
        except OSError as error:
            invalid.append(Invalid(f"{SPEED}/{path.name}", explain(error)))
        except ValueError as error:
            invalid.append(Invalid(f"{SPEED}/{path.name}", " ".join(str(error).split())))
    sessions.sort(key=lambda session: (session.finished, session.key))
    return Speeds(tuple(sessions), tuple(invalid))


_SESSION: dict[str, Any] = {
    "schema": COUNT,
    "models": [
        {
            "name": TEXT,
            "key": TEXT,
            "random_weights": FLAG,
            "backend": TEXT,
            "parameters": COUNT,
            "with_head": COUNT,
            "file_bytes": (int, NoneType),
            "peak_bytes": (int, NoneType),
            "file_dtype": TEXT_OR_NONE,
            "timings": [
                {
                    **dict.fromkeys(("threads", "batch_size"), COUNT),
                    **dict.fromkeys(("p50", "p90", "p99"), NUMBER),
                    "passes": [NUMBER],
                }
            ],
        }
    ],
    "setup": {
        **dict.fromkeys(("source", "content"), TEXT_OR_NONE),
        **dict.fromkeys(("pairs", "repeats", "seed", "max_seq_length"), COUNT),
        "full": FLAG,
        "threads": [COUNT],
        "batch_sizes": [COUNT],
        "dtype": TEXT,
    },
    "machine": {"cores": COUNT, **dict.fromkeys(("processor", "system", "device"), TEXT)},
    "version": TEXT,
    "commit": TEXT_OR_NONE,
    "libraries": Named(TEXT),
    "environment": Named(TEXT),
    "load": NUMBER,
    "waited": (*NUMBER, NoneType),
    "processor_flags": [TEXT],
    "finished": TEXT,
}


def from_record(record: Any) -> Session:
    """Return the session in a parsed JSON record.

    Raises:
        ValueError: the record is invalid; the message is half a line.
    """
    schema = version_of(record, SCHEMA, "a session")
    if schema < _OLDEST:
        raise ValueError(f"has schema {schema}, which is no longer read: time the models again")
    if schema == _OLDEST:
        record = _from_schema_2(record)
    if schema < SCHEMA:
        record = _from_schema_3(record)
    require(record, _SESSION, "a session", check=_require_measurement)
    session = Session(
        **{
            **record,
            "models": tuple(map(_timed, record["models"])),
            "setup": Setup(**_as_tuples(record["setup"])),
            "machine": Machine(**record["machine"]),
            "processor_flags": tuple(record["processor_flags"]),
        }
    )
    _require_complete(session)
    return session


def _from_schema_2(record: Mapping[str, Any]) -> dict[str, Any]:
    """Upgrade schema 2, which did not record the type of the numbers in weight files."""
    models = record.get("models")
    if isinstance(models, list):
        models = [{"file_dtype": None, **each} if type(each) is dict else each for each in models]
    return {**record, "models": models, "schema": 3}


def _from_schema_3(record: Mapping[str, Any]) -> dict[str, Any]:
    """Upgrade schema 3, which timed models in torch alone and kept no flags of the processor."""
    models = record.get("models")
    if isinstance(models, list):
        models = [{"backend": "torch", **each} if type(each) is dict else each for each in models]
    return {"processor_flags": [], **record, "models": models, "schema": SCHEMA}


def _timed(record: Mapping[str, Any]) -> Timed:
    timings = tuple(Timing(**_as_tuples(each)) for each in record["timings"])
    return Timed(**{**record, "timings": timings})


def _as_tuples(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record with tuples instead of JSON's lists."""
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in record.items()
    }


def _require_measurement(value: Any, where: str) -> None:
    if type(value) in NUMBER and not 0 <= value < _LARGEST:
        raise ValueError(f"{where} {value!r:.40} is not a measurement")


def _require_complete(session: Session) -> None:
    """Refuse a session that lacks a timing of its setup: tables read all of them."""
    setup = session.setup
    expected = {(threads, size) for threads in setup.threads for size in setup.batch_sizes}
    if not session.models or not setup.threads or 1 not in setup.batch_sizes or not setup.pairs:
        raise ValueError("is a session in which nothing was timed at batch size 1")
    for model in session.models:
        found = [(timing.threads, timing.batch_size) for timing in model.timings]
        if len(found) != len(expected) or set(found) != expected:
            raise ValueError(f"the timings of {model.name} are not those of its setup")
        for timing in model.timings:
            shortest = min(timing.passes, default=0)
            if len(timing.passes) != setup.repeats or shortest < _SHORTEST_PASS:
                raise ValueError(f"the passes of {model.name} are not {setup.repeats} times")
