"""Sessions of `speed`: what was timed, where and how; their files. Imports no torch."""

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
            "parameters": COUNT,
            "with_head": COUNT,
            "file_bytes": (int, NoneType),
            "peak_bytes": (int, NoneType),
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
    "finished": TEXT,
}


def from_record(read: Any) -> Session:
    """A session from JSON's value.

    Raises:
        ValueError: what is wrong with it, in half a line.
    """
    schema = version_of(read, SCHEMA, "a session")
    if schema < SCHEMA:
        raise ValueError(f"has schema {schema}, which is no longer read: time it again")
    require(read, _SESSION, "a session", check=_require_measurement)
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


def _require_measurement(value: Any, where: str) -> None:
    if type(value) in NUMBER and not 0 <= value < _LARGEST:
        raise ValueError(f"{where} {value!r:.40} is not a measurement")


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
