"""Which model a name means: where it is, and a digest of what is in it. Imports no torch."""

import json
import re
from pathlib import Path
from typing import Any

from angels_share.errors import UserError
from angels_share.files import hash_of, sha256_of_file
from angels_share.names import Located, ShortName, known_as, locate
from angels_share.tokenizing import has_tokenizer
from angels_share.untrusted import require_safetensors
from eval_harness.runs import Model
from eval_harness.tasks import TASKS, Task

# What decides what a model computes; its README doesn't.
_CONTENT = ("*.safetensors", "*.safetensors.index.json", "config.json", "tokenizer.json",
            "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt", "added_tokens.json",
            "special_tokens_map.json", "spiece.model", "sentencepiece.bpe.model",
            "tokenizer.model")  # fmt: skip
_RECORD = "distil.json"


def identify(name: str) -> Model:
    """The model that a short name, a folder or a Hub id means.

    Raises:
        UserError: there is none, or it holds no weights that can be read without running code.
    """
    located = locate(name)
    row = known_as(name)
    if located.kind == "folder":
        row = None  # whatever it is called, it is the user's own
        require_safetensors(Path(located.source), "AutoModel")
        if not has_tokenizer(located.source):
            raise UserError(f"{located.source}: holds no tokenizer: copy its teacher's into it")
    return Model(
        name=_shown_name(name, located, row),
        slug=_slug(row.short if row else Path(located.source).resolve().name),
        digest=_digest(located),
        source=str(Path(located.source).resolve()) if located.kind == "folder" else located.source,
        revision=located.revision,
        teacher=_teacher_of(located, row),
    )


def _shown_name(name: str, located: Located, row: ShortName | None) -> str:
    if row is not None:
        return row.short
    return Path(located.source).resolve().name if located.kind == "folder" else name


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "model"


def _digest(located: Located) -> str:
    if located.revision is not None:
        return located.revision[:8]
    folder = Path(located.source)
    files = sorted({path for pattern in _CONTENT for path in folder.glob(pattern)})
    return hash_of({path.name: sha256_of_file(path) for path in files})


def _teacher_of(located: Located, row: ShortName | None) -> str | None:
    """Whom it was distilled from: by our table of names, or by the record in its folder."""
    if row is not None:
        return row.teacher
    record = Path(located.source) / _RECORD
    if located.kind != "folder" or not record.is_file():
        return None
    try:
        teachers = json.loads(record.read_text(encoding="utf-8"))["teachers"]
        return _shown(str(teachers[0]["name"])) if teachers else None
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(
            f"{record}: is no record of a distillation: {error!r}; remove it"
        ) from error


def _shown(name: str) -> str:
    """A teacher's name as its own results bear it."""
    row = known_as(name)
    return row.short if row else Path(name).name


_HEADS = {"texts": "ForSequenceClassification", "questions": "ForQuestionAnswering"}


def is_fine_tuned_for(model: Model, task: Task) -> bool:
    """Whether a model has a head for just this task.

    It says so itself where the harness wrote it. Else a model that answers questions does, and of
    other ones the labels' names must be this task's, and no other one's: RTE and QNLI have the
    same.
    """
    config = _config(model)
    if not (config.get("architectures") or [""])[0].endswith(_HEADS[task.kind]):
        return False
    if written := config.get("finetuning_task"):
        return bool(written == task.name)
    if task.kind == "questions":
        return True
    names = config.get("id2label") or {}
    labels = tuple(names[key] for key in sorted(names, key=int))
    return labels == task.labels and [each.labels for each in TASKS].count(labels) <= 1


def _config(model: Model) -> dict[str, Any]:
    path = Path(model.source) / "config.json"
    if model.revision is not None:
        from huggingface_hub import hf_hub_download

        path = Path(hf_hub_download(model.source, "config.json", revision=model.revision))
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is no model's config: {error}") from error
    return config
