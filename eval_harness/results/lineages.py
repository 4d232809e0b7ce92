"""Lines of models, each made from the one before, and their JSON files. Imports no torch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from angels_share.files import explain, hash_of, write_json
from eval_harness.results.schema import COUNT, TEXT, TEXT_OR_NONE, parsed, require, version_of
from eval_harness.results.store import NO_FILE, Invalid

SCHEMA = 1
LINEAGES = "lineages"


@dataclass(frozen=True)
class Generation:
    """A model of a line, as it was when the line was noted.

    Attributes:
        label: what the table calls it.
        row: the label of its row of results.
        key: its identity in results.
        what: how it was made from the one before, as its record says; "" where none does.
        sha256: the hash of its weights, or of its one file.
        bytes: the size of its weights on disk; None where they are not there any more.
        parameters: their number; None for an exported file, which doesn't say.
    """

    label: str
    row: str
    key: str
    what: str
    sha256: str | None
    bytes: int | None
    parameters: int | None


@dataclass(frozen=True)
class Line:
    """Models from a teacher to what runs at the edge, in order.

    Attributes:
        models: the models.
        tasks: the tasks that they are judged on.
        schema: the version of the record.
    """

    models: tuple[Generation, ...]
    tasks: tuple[str, ...]
    schema: int = SCHEMA

    @property
    def name(self) -> str:
        """The name of its file: a line of the same rows and tasks replaces it."""
        return hash_of({"rows": [each.row for each in self.models], "tasks": self.tasks})


@dataclass(frozen=True)
class Lines:
    """The lines of a results folder, and the files that are not valid."""

    lines: Sequence[Line] = ()
    invalid: Sequence[Invalid] = ()


_COUNT_OR_NONE = (int, NoneType)
_SHAPE: dict[str, Any] = {
    "models": [
        {
            "label": TEXT,
            "row": TEXT,
            "key": TEXT,
            "what": TEXT,
            "sha256": TEXT_OR_NONE,
            "bytes": _COUNT_OR_NONE,
            "parameters": _COUNT_OR_NONE,
        }
    ],
    "tasks": [TEXT],
    "schema": COUNT,
}


def write_line(root: Path | str, line: Line) -> Path:
    """Write a line's file atomically and return its path."""
    return write_json(Path(root) / LINEAGES / f"{line.name}.json", asdict(line))


def find_lines(root: Path | str) -> Lines:
    """Load all lines of a results folder, and name the files that are not valid ones."""
    lines, invalid = [], []
    for path in sorted((Path(root) / LINEAGES).glob("[!.]*.json")):
        name = f"{LINEAGES}/{path.name}"
        if path.exists() and not (path.is_file() or path.is_dir()):
            invalid.append(Invalid(name, NO_FILE))
            continue
        try:
            lines.append(_from_record(parsed(path.read_bytes())))
        except OSError as error:
            invalid.append(Invalid(name, explain(error)))
        except ValueError as error:
            invalid.append(Invalid(name, " ".join(str(error).split())))
    return Lines(tuple(lines), tuple(invalid))


def _require_count(value: Any, where: str) -> None:
    if type(value) is int and value < 0:
        raise ValueError(f"{where} {value} is not a count")


def _from_record(record: Any) -> Line:
    version_of(record, SCHEMA, "a line of models")
    require(record, _SHAPE, "a line of models", check=_require_count)
    models = tuple(Generation(**each) for each in record["models"])
    return Line(models, tuple(record["tasks"]), record["schema"])
