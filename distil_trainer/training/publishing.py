"""The Trainer's own methods of publishing, which do here what the commands do."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from angels_share.errors import UserError
from angels_share.files import write_atomically, write_json
from angels_share.hub.push import Destination, push, require_login, upload_of_model
from angels_share.model_files import CARD
from angels_share.student_record import RECORD
from distil_trainer.training.record import identity_of, record_of
from distil_trainer.training.resumable import ResumableTrainer


class PublishingTrainer(ResumableTrainer):
    """A trainer whose student goes to the Hub as the commands' do: chosen files, one commit."""

    teachers: list[PreTrainedModel]

    def save_model(
        self,
        output_dir: str | None = None,
        _internal_call: bool = False,  # noqa: FBT001, FBT002  (the Trainer's signature)
    ) -> None:
        """Save the student with its tokenizer; in `output_dir` of the arguments its record as well.

        Args:
            output_dir: the folder [that of the arguments].
            _internal_call: whether it is a part of something else, such as a checkpoint.
        """
        super().save_model(output_dir, _internal_call)
        own = Path(self.args.output_dir).resolve()
        is_own = output_dir is None or Path(output_dir).resolve() == own
        if is_own and not _internal_call and self.is_world_process_zero():
            write_record(self)

    def create_model_card(self, **named: Any) -> None:
        """Write the student's card into `output_dir`; what people wrote into it stays.

        Args:
            named: `language` and `license`, as transformers has them; nothing else is taken, since
                the rest follows from the record.

        Raises:
            UserError: another argument, or there is no saved student yet.
        """
        if self.is_world_process_zero():
            write_record(self)
            write_card(Path(self.args.output_dir), self._destination(), **named)

    def push_to_hub(
        self,
        commit_message: str | None = None,
        blocking: bool = True,  # noqa: FBT001, FBT002  (the Trainer's signature)
        token: str | None = None,
        revision: str | None = None,
        **named: Any,
    ) -> str:
        """Save the student and push it to the Hub in one commit, private unless said otherwise.

        Only what others need goes up: no optimizer states, pickles, arguments, logs or text.

        Args:
            commit_message: title of the commit.
            blocking: must be True: the commit is there when this returns.
            token: refused: a token comes from HF_TOKEN or `hf auth login`.
            revision: branch to push to [`hub_revision`, else main].
            named: `language` and `license`, for the card.

        Returns:
            What was done, in a line.

        Raises:
            UserError: an argument can't be used, or the Hub doesn't take it, and why.
        """
        if token is not None:
            raise UserError("token: set HF_TOKEN or run `hf auth login` instead")
        if not blocking:
            raise UserError("blocking=False: a push is one commit that is there when this returns")
        place = self._destination()
        if revision is not None:
            place = replace(place, revision=revision)
        folder = Path(self.args.output_dir)
        self.save_model(str(folder), _internal_call=True)
        if not self.is_world_process_zero():
            return ""
        write_record(self)
        return push_student(folder, place, commit_message, **named)

    def _destination(self) -> Destination:
        args = self.args
        name = args.hub_model_id or Path(args.output_dir).resolve().name
        private = True if args.hub_private_repo is None else args.hub_private_repo
        return Destination(name, private=private, revision=args.hub_revision)


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
    """Write the record of a training by the Trainer alone; the command's of it says more."""
    path, step = Path(trainer.args.output_dir) / RECORD, trainer.state.global_step
    if not _is_of_the_command(path, step):
        status = "complete" if trainer.stop_signal is None else "interrupted"
        teachers = list(map(identity_of, trainer.teachers))
        write_json(path, {**record_of(trainer, status), "teachers": teachers})


def _is_of_the_command(path: Path, step: int) -> bool:
    """Return whether a record is the command's, and of this very training."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return "ablation" in record and record["step"] == step
    except (OSError, ValueError, KeyError, TypeError):
        return False


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
    place = replace(destination, repo_id=name if "/" in name else f"OWNER/{name}")
    upload = upload_of_model(folder, place, licence=licence, languages=languages)
    path = folder / CARD
    existing = path.read_bytes().decode("utf-8") if path.exists() else None
    write_atomically(path, upload.card(existing))


def _given(named: dict[str, Any]) -> tuple[str | None, Sequence[str]]:
    """Return licence and languages; refuse everything else, which would be ignored."""
    for name in sorted(named.keys() - {"language", "license"}):
        raise UserError(
            f"{name} is not taken: the card's facts come from the student's record; write what "
            "else you want to say into the card"
        )
    languages = named.get("language") or ()
    return named.get("license"), [languages] if isinstance(languages, str) else list(languages)
