"""Which model a name means: where it is, and a digest of what is in it. Imports no torch."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from angels_share.ablations import ABLATIONS
from angels_share.errors import UserError
from angels_share.files import hash_of, sha256_of_file
from angels_share.names import Located, ShortName, known_as, locate
from angels_share.student_record import RECORD
from angels_share.tokenizing import has_tokenizer
from angels_share.untrusted import require_safetensors
from eval_harness.runs.run import Distilled, Model
from eval_harness.tasks.registry import TASKS, Task

# What decides what a model computes; its README doesn't.
_CONTENT = ("*.safetensors", "*.safetensors.index.json", "config.json", "tokenizer.json",
            "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt", "added_tokens.json",
            "special_tokens_map.json", "spiece.model", "sentencepiece.bpe.model",
            "tokenizer.model")  # fmt: skip
_WEIGHTS = "model.safetensors"


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
    teacher = _Origin(row.teacher) if row else _origin(located)
    content = _content(located)
    return Model(
        name=_shown_name(name, located, row),
        slug=_slug(row.short if row else Path(located.source).resolve().name),
        digest=located.revision[:8] if located.revision is not None else hash_of(content),
        source=str(Path(located.source).resolve()) if located.kind == "folder" else located.source,
        revision=located.revision,
        teacher=teacher.teacher,
        distilled=teacher.distilled,
        weights=content.get(_WEIGHTS),
        teacher_weights=teacher.weights,
    )


def _shown_name(name: str, located: Located, row: ShortName | None) -> str:
    if row is not None:
        return row.short
    return _folder_name(Path(located.source).resolve()) if located.kind == "folder" else name


def _folder_name(path: Path) -> str:
    """What a model's folder is called; `none` and `no-ce` say little without their study's name."""
    return f"{path.parent.name}/{path.name}".lstrip("/") if path.name in ABLATIONS else path.name


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "model"


def _content(located: Located) -> dict[str, str]:
    """The sha256 of each file of a folder that decides what the model computes."""
    if located.revision is not None:
        return {}
    folder = Path(located.source)
    files = sorted({path for pattern in _CONTENT for path in folder.glob(pattern)})
    return {path.name: sha256_of_file(path) for path in files}


class _Origin(NamedTuple):
    """Whom a model was distilled from, and how."""

    teacher: str | None = None
    weights: str | None = None
    distilled: Distilled | None = None


def _origin(located: Located) -> _Origin:
    """What the record in a folder says; its teacher is the first where there are several."""
    path = Path(located.source) / RECORD
    if located.kind != "folder" or not path.is_file():
        return _Origin()
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not record["teachers"]:
            return _Origin()
        teacher = record["teachers"][0]
        weights = teacher.get("sha256") or teacher.get("revision")
        known = str(weights) if weights else None
        return _Origin(_shown(str(teacher["name"])), known, _distilled(record))
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(f"{path}: is no record of a distillation: {error!r}; remove it") from error


def _shown(name: str) -> str:
    """A teacher's name as its own results bear it."""
    row = known_as(name)
    return row.short if row else _folder_name(Path(name))


def _distilled(record: Mapping[str, Any]) -> Distilled | None:
    """How a student was made; a teacher is what it says, wherever that lay."""
    if "ablation" not in record:
        return None
    recipe, asked = record["recipe"], record["student"]["asked_for"]
    weights = {name: float(value) for name, value in recipe.items() if _is_weight(name)}
    rest = {
        "teachers": [each["sha256"] or each["revision"] or each["name"]
                     for each in record["teachers"]],
        "corpus": record["corpus"].get("fingerprint") or record["corpus"],
        "asked_for": {name: asked[name] for name in asked if name != "student_init"},
        # A student that starts at random is another one to begin with.
        "recipe": {name: value for name, value in recipe.items()
                   if name != "student" and not _is_weight(name)},
    }  # fmt: skip
    init = str(asked["student_init"])
    return Distilled(str(record["ablation"]), weights, init, hash_of(rest, 16))


def _is_weight(name: str) -> bool:
    return name.startswith("alpha_")


def is_fine_tuned_for(model: Model, task: Task) -> bool:
    """Whether a model has a head for just this task.

    It says so itself where the harness wrote it. Else its head must be
    of the task's kind, and where a head names classes these must be this task's and no other
    one's: RTE and QNLI have the same.
    """
    config = _config(model)
    if not (config.get("architectures") or [""])[0].endswith(task.kind.head_ending):
        return False
    if written := config.get("finetuning_task"):
        return bool(written == task.name)
    if not task.kind.names_classes:
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
