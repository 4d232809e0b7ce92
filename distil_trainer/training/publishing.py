"""What the Trainer's own methods of publishing do here: the same as the commands."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from angels_share.card.render import facts_of, render
from angels_share.errors import UserError
from angels_share.files import write_atomically, write_json
from angels_share.hub.inherited import inherited
from angels_share.hub.push import CARD, Destination, push, require_login, upload_of_model
from angels_share.student_record import RECORD
from distil_trainer.training.record import identity_of, record_of


def push_student(
    folder: Path, destination: Destination, title: str | None = None, **named: Any
) -> str:
    """Push a saved student and return what was done, in a line.

    Args:
        folder: the student's folder.
        destination: where it goes.
        title: title of the commit.
        named: `language` and `license`, for the card.

    Raises:
        UserError: an argument can't be used, or the Hub doesn't take it, and why.
    """
    licence, languages = _given(named)
    place = require_login(destination)
    upload = upload_of_model(folder, place, licence=licence, languages=languages)
    return push(replace(upload, title=title) if title else upload, place)


def write_record(trainer: Any) -> None:
    """Write the record of a training by the Trainer alone; the command's says more, and stays."""
    path = Path(trainer.args.output_dir) / RECORD
    if not path.exists():
        teachers = list(map(identity_of, trainer.teachers))
        write_json(path, {**record_of(trainer), "teachers": teachers})


def write_card(folder: Path, destination: Destination, **named: Any) -> None:
    """Write a student's card into its folder.

    Args:
        folder: the student's folder.
        destination: where it will go.
        named: `language` and `license`.

    Raises:
        UserError: an argument can't be used, or there is no saved student.
    """
    licence, languages = _given(named)
    name = destination.repo_id
    known = inherited(folder)
    facts = facts_of(
        folder,
        name if "/" in name else f"OWNER/{name}",
        license=licence or known.licence,
        languages=languages or known.languages,
    )
    path = folder / CARD
    existing = None
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            existing = file.read()
    write_atomically(path, render(facts, existing))


def _given(named: dict[str, Any]) -> tuple[str | None, Sequence[str]]:
    """Return licence and languages; refuse everything else, which would be ignored."""
    for name in sorted(named.keys() - {"language", "license"}):
        raise UserError(
            f"{name} is not taken: the card's facts come from the student's record; write what "
            "else you want to say into the card"
        )
    languages = named.get("language") or ()
    return named.get("license"), [languages] if isinstance(languages, str) else list(languages)
