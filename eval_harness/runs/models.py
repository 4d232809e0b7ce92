"""Models by name: where a model is, and a digest of its content. Imports no torch."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from angels_share.ablations import ABLATIONS, FULL
from angels_share.errors import UserError
from angels_share.files import hash_of, sha256_of_file
from angels_share.hub.fetch import at_commit, model_folder
from angels_share.hub.locate import Located, locate
from angels_share.imports import require_extra
from angels_share.names import ShortName, short_name_of
from angels_share.student_record import LINEAGE, RECORD
from angels_share.tokenizing import has_tokenizer
from angels_share.untrusted import require_safetensors
from eval_harness.runs.onnx_files import (
    checked_file,
    is_quantized,
    names_onnx,
)
from eval_harness.runs.run import ONNX_SUFFIX, Distilled, Model, Training, home_of
from eval_harness.tasks.registry import TASKS, XNLI, Task

# The files that determine what a model computes; its README doesn't.
_CONTENT = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
_OF_WEIGHTS = 2
"""How many of these patterns, the first, are of weights."""
_WEIGHTS = "model.safetensors"
_PADDED_POSITIONS = ("roberta", "xlm-roberta", "camembert")
_ABSOLUTE_POSITIONS = ("bert", "distilbert", "electra", "albert", "gpt2", *_PADDED_POSITIONS)
"""Model types with a table of positions, whose size is the most that they read."""
_UNREADABLE = (OSError, ValueError, RecursionError)
"""Why a JSON file can't be read; the last of them where it is nested too deeply."""


def identify(name: str) -> Model:
    """Return the model that a short name, a folder, a Hub id or an ONNX file refers to.

    Raises:
        UserError: not found, no tokenizer, or no weights that can be read without running code.
    """
    if names_onnx(name):
        return _identify_file(name)
    located = locate(name)
    row = short_name_of(name.partition("@")[0])
    if located.kind == "folder":
        row = None  # a folder is the user's own model, even if named like a short name
        require_safetensors(Path(located.source), "AutoModel")
        if not has_tokenizer(located.source):
            raise UserError(f"{located.source}: holds no tokenizer: copy its teacher's into it")
    lineage = _Lineage(row.teacher) if row else _read_lineage(located)
    digests = _file_digests(located)
    return Model(
        name=_display_name(name, located, row),
        slug=_slug(row.short if row else Path(located.source).resolve().name),
        digest=located.revision[:8] if located.revision is not None else hash_of(digests),
        source=str(Path(located.source).resolve()) if located.kind == "folder" else located.source,
        revision=located.revision,
        teacher=lineage.teacher,
        distilled=lineage.distilled,
        weights=digests.get(_WEIGHTS),
        teacher_weights=lineage.teacher_weights,
    )


def _identify_file(name: str) -> Model:
    """Return the model in an ONNX file: it, its config and its tokenizer make the digest."""
    path = checked_file(name)
    require_extra("onnxruntime", "export", name)
    home = home_of(path)
    if not (home / "config.json").is_file() or not has_tokenizer(str(home)):
        raise UserError(
            f"{name}: {home} has no config.json with a tokenizer, which an exported model needs"
        )
    located = locate(str(home))
    lineage = _read_lineage(located)
    weights = sha256_of_file(path)
    digests = {**_file_digests(located, weights=False), ONNX_SUFFIX: weights}
    suffix = "onnx int8" if is_quantized(path) else "onnx"
    return Model(
        name=f"{folder_name(home)} ({suffix})",
        slug=_slug(f"{home.name} {suffix}"),
        digest=hash_of(digests),
        source=str(path),
        teacher=lineage.teacher,
        distilled=lineage.distilled,
        weights=weights,
        teacher_weights=lineage.teacher_weights,
    )


def _display_name(name: str, located: Located, row: ShortName | None) -> str:
    if row is not None:
        return row.short
    if located.kind == "folder":
        return folder_name(Path(located.source).resolve())
    return name.partition("@")[0]


def folder_name(path: Path) -> str:
    """Return a folder's name, after its study's if it is an ablation's, such as `study/no-ce`.

    Of a student among several seeds it is `study-11`, or `no-ce-11`: the folder is `seed-11`, or in
    it.
    """
    study = path.parent
    if seed := re.fullmatch(r"seed-(\d+)", path.name):
        return f"{study.name}-{seed[1]}".lstrip("-")
    if path.name not in ABLATIONS:
        return path.name
    if seed := re.fullmatch(r"seed-(\d+)", study.name):
        return f"{study.parent.name if path.name == FULL else path.name}-{seed[1]}".lstrip("-")
    return f"{study.name}/{path.name}".lstrip("/")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "model"


def _file_digests(located: Located, *, weights: bool = True) -> dict[str, str]:
    """Return the sha256 of each file in a folder that determines what the model computes."""
    if located.revision is not None:
        return {}
    folder, patterns = Path(located.source), _CONTENT if weights else _CONTENT[_OF_WEIGHTS:]
    files = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    return {path.name: sha256_of_file(path) for path in files}


class _Lineage(NamedTuple):
    """The teacher that a model was distilled from, and how."""

    teacher: str | None = None
    teacher_weights: str | None = None
    distilled: Distilled | None = None


def _read_lineage(located: Located) -> _Lineage:
    """Read the record in a model's folder; of several teachers the first one counts."""
    path = model_folder(located, weights=False) / RECORD
    if not path.is_file():
        return _Lineage()
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        was_trained = "teachers" in record or LINEAGE not in record
        if not was_trained or not record["teachers"]:
            return _Lineage()
        teacher = record["teachers"][0]
        weights = teacher.get("revision") or teacher.get("sha256")  # as it is known by itself
        name = _teacher_name(str(teacher["name"]))
        return _Lineage(name, str(weights) if weights else None, _distilled(record))
    except (*_UNREADABLE, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(
            f"{path}: not a valid distillation record ({error!r}); remove it"
        ) from error


def training_of(model: Model) -> Training | None:
    """Return how a model was pre-trained, where its folder has a record of that.

    Raises:
        UserError: the record can't be read.
    """
    path = folder_of(model, weights=False) / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if "student" not in record or "recipe" not in record:  # not of `run_pretrain_distill`
            return None
        recipe, asked_for = dict(record["recipe"]), dict(record["student"]["asked_for"])
        seed = int(recipe.pop("seed"))
        recipe.pop("student", None)  # a hash of its initial weights: of another seed, others
        made_of = {
            "ablation": record["ablation"],
            "teachers": [_content_of(teacher) for teacher in record["teachers"]],
            "corpus": record["corpus"].get("fingerprint") or record["corpus"],
            "asked_for": {**asked_for, "student": _content_of_student(asked_for["student"])},
            "recipe": recipe,
        }
        return Training(hash_of(made_of, 16), seed)
    except (*_UNREADABLE, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a valid training record ({error!r}); remove it") from error


def _content_of(teacher: Mapping[str, Any]) -> str:
    """Return what a recorded teacher is known by: its content, not its path."""
    return str(teacher["revision"] or teacher["sha256"] or teacher["name"])


def _content_of_student(given: str | None) -> str | None:
    """Return a given student's content, as far as it is still there, else its name."""
    if given is None:
        return None
    path = Path(given).expanduser()
    file = path / "config.json" if path.is_dir() else path
    return sha256_of_file(file) if file.is_file() else given


def _teacher_name(name: str) -> str:
    """Return a teacher's name as `identify` would give it."""
    row = short_name_of(name.partition("@")[0])
    return row.short if row else folder_name(Path(name))


def _distilled(record: Mapping[str, Any]) -> Distilled | None:
    """Return how a student was distilled; teachers count by their content, not their path."""
    if "ablation" not in record:
        return None
    recipe, requested = record["recipe"], record["student"]["asked_for"]
    loss = {name: float(value) for name, value in recipe.items() if _is_loss_weight(name)}
    rest = {
        "teachers": [_content_of(teacher) for teacher in record["teachers"]],
        "corpus": record["corpus"].get("fingerprint") or record["corpus"],
        "asked_for": {name: requested[name] for name in requested if name != "student_init"},
        # Without `student`, a hash of its initial weights: it differs for a random initialisation.
        "recipe": {
            name: value
            for name, value in recipe.items()
            if name != "student" and not _is_loss_weight(name)
        },
    }
    init = str(requested["student_init"])
    return Distilled(str(record["ablation"]), loss, init, hash_of(rest, 16))


def _is_loss_weight(name: str) -> bool:
    return name.startswith("alpha_")


def folder_of(model: Model, *, weights: bool = True) -> Path:
    """Return a folder with exactly this revision of a model, fetched if need be.

    Args:
        model: the model.
        weights: whether its weights are needed, or its config and tokenizer alone.

    Raises:
        UserError: it can't be fetched.
    """
    if model.revision is None:
        return Path(model.home)
    return model_folder(at_commit(model.source, model.revision), weights=weights)


def is_fine_tuned_for(model: Model, task: Task) -> bool:
    """Return whether a model has a head for exactly this task.

    Its head must be of the task's kind. The config of a model that the harness wrote names the
    task; else the classes that a head names must be this task's and no other's: those of RTE and
    QNLI, which have the same, prove nothing.
    """
    config = config_of(model)
    if task.kind.head_of((config.get("architectures") or [""])[0]) is None:
        return False
    if task.kind.is_pretrained:
        return True
    if recorded := config.get("finetuning_task"):
        return bool(recorded == task.name)
    if not task.kind.names_classes:
        return True
    names = config.get("id2label") or {}
    labels = tuple(names[key] for key in sorted(names, key=int))
    # XNLI's English training pairs are MNLI's, so a head of one is a head of the other.
    known = [other.labels for other in TASKS if other.table != XNLI]
    is_translated = task.table == XNLI and not task.averages
    return labels == task.labels and known.count(labels) <= 1 and not is_translated


def max_tokens_of(model: Model) -> int | None:
    """Return how many tokens a model reads at most, where its config alone makes that certain."""
    config = config_of(model)
    kind = config.get("model_type")
    positions = config.get("n_positions" if kind == "gpt2" else "max_position_embeddings")
    if type(positions) is not int or kind not in _ABSOLUTE_POSITIONS:
        return None
    if kind not in _PADDED_POSITIONS:
        return positions
    # The entries up to the padding token's are not used for tokens.
    padding = config.get("pad_token_id")
    return positions - padding - 1 if type(padding) is int else None


def config_of(model: Model) -> dict[str, Any]:
    """Return what a model's config.json holds.

    Raises:
        UserError: it can't be read.
    """
    path = folder_of(model, weights=False) / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except _UNREADABLE as error:
        raise UserError(f"{path}: not a model's config: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: not a model's config: expected an object")
    return config
