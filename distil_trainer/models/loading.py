"""Loading models from a folder, the Hub cache or the Hub; creating students from a config file.

Weights are read from safetensors only, and code that comes with a model is never run.
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from angels_share.errors import UserError, one_line
from angels_share.hub.fetch import model_folder
from angels_share.hub.locate import locate
from angels_share.untrusted import (
    quiet_transformers,
    refuse_code,
    refuse_unknown_fields,
    require_safetensors,
)
from distil_trainer.models.families import Family, family_named, family_of

Task = Literal["lm", "classification", "qa"]

_logger = logging.getLogger(__name__)

_TASK_CLASSES = {
    "classification": "AutoModelForSequenceClassification",
    "qa": "AutoModelForQuestionAnswering",
}
# Heads of fine-tuned models by the end of their class name; a config that names no class gets the
# first.
_FINE_TUNED = {
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForTokenClassification": "AutoModelForTokenClassification",
    "ForQuestionAnswering": "AutoModelForQuestionAnswering",
}
_HEADS = {
    **_FINE_TUNED,
    "ForMaskedLM": "AutoModelForMaskedLM",
    "ForCausalLM": "AutoModelForCausalLM",
    "LMHeadModel": "AutoModelForCausalLM",
}
# Fields that depend on the tokenizer; a student's config that omits them gets the teacher's.
_VOCABULARY_FIELDS = ("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id")
_UNREADABLE = (
    OSError, ValueError, AttributeError, TypeError, RecursionError, StrictDataclassError,
    SafetensorError,
)  # fmt: skip


def load_config(name: str) -> PreTrainedConfig:
    """Return the config of a model whose architecture is supported.

    Raises:
        UserError: it can't be found or read, its architecture isn't supported, or it asks for
            custom code.
    """
    return _config_in(name, model_folder(locate(name), weights=False))


def _config_in(name: str, folder: Path) -> PreTrainedConfig:
    try:
        values, _ = PreTrainedConfig.get_config_dict(folder)
        refuse_code(name, values)
        if not isinstance(model_type := values.get("model_type"), str):
            raise UserError(f"{name}: its config.json has no model_type")
        family_named(model_type)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except _UNREADABLE as error:
        raise UserError(f"{name}: its config cannot be used: {one_line(error)}") from error
    family_of(config)
    return config


def load_model(
    name: str, *, task: Task = "lm", dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """Load a model with the head for a task, in eval mode.

    Weights outside the body that its files lack (a language-model head that a sentence encoder
    never had) are initialised at random, with a warning.

    Args:
        name: a folder, a short name or a Hub id.
        task: "lm" for the architecture's language model, "classification" or "qa".
        dtype: the weights' dtype, whatever the files or the config say.

    Raises:
        UserError: it can't be loaded, its weights are pickled, or they don't fit its config.
    """
    folder = model_folder(locate(name))
    config = _config_in(name, folder)
    family = family_of(config)
    model_class = family.model_class if task == "lm" else getattr(transformers, _TASK_CLASSES[task])
    require_safetensors(folder, model_class.__name__)
    model, report = _from_pretrained(model_class, name, folder, config, dtype)
    _check_sizes(name, report["mismatched_keys"])
    _check_body(name, family, report["missing_keys"] | report["unexpected_keys"])
    _warn_of_random_weights(name, task, report["missing_keys"])
    return model


def load_fine_tuned(folder: str) -> PreTrainedModel:
    """Load a fine-tuned model of any architecture, with the head that its config names.

    Raises:
        UserError: it can't be loaded without running code, or some of its weights are missing.
    """
    config = fine_tuned_config(folder)
    class_name = (config.architectures or ["ForSequenceClassification"])[0]
    return _load_whole(folder, Path(folder), config, _head_of(folder, class_name, _FINE_TUNED))


def _load_whole(name: str, folder: Path, config: PreTrainedConfig, head: str) -> PreTrainedModel:
    """Load a model none of whose weights may be missing."""
    require_safetensors(folder, head)
    model_class = getattr(transformers, head)
    model, report = _from_pretrained(model_class, name, folder, config, torch.float32)
    _check_sizes(name, report["mismatched_keys"])
    if missing := report["missing_keys"]:
        raise UserError(f"{name}: {len(missing)} weights are missing, e.g. {min(missing)}")
    return model


def load_as_saved(name: str) -> PreTrainedModel:
    """Load a model of any architecture, with the head that its config names, all weights there.

    Args:
        name: a folder, a short name or a Hub id.

    Raises:
        UserError: it can't be loaded without running code, its head is none of those that are
            known, or some of its weights are missing.
    """
    folder = model_folder(locate(name))
    config = fine_tuned_config(str(folder))
    class_name = (config.architectures or ["no class"])[0]
    return _load_whole(name, folder, config, _head_of(name, class_name, _HEADS))


def _head_of(name: str, class_name: str, heads: Mapping[str, str]) -> str:
    """Return the class that loads a model's head, by the end of the class that its config names."""
    head = next((head for ending, head in heads.items() if class_name.endswith(ending)), None)
    if head is None:
        raise UserError(
            f"{name}: its config names {class_name}, whose head is not used here: the first of "
            f"config.json's architectures must end in {' or '.join(heads)}"
        )
    return head


def fine_tuned_config(folder: str) -> PreTrainedConfig:
    """Return the config of a fine-tuned model of any architecture.

    Raises:
        UserError: it can't be read, or asks for custom code.
    """
    try:
        values, _ = PreTrainedConfig.get_config_dict(folder)
        refuse_code(folder, values)
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except _UNREADABLE as error:
        raise UserError(f"{folder}: its config cannot be used: {one_line(error)}") from error


def _from_pretrained(
    model_class: Any, name: str, folder: Path, config: PreTrainedConfig, dtype: torch.dtype
) -> tuple[PreTrainedModel, dict[str, set[Any]]]:
    try:
        with quiet_transformers():
            model, report = model_class.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                # For weights of the wrong size, the report says more than the exception would.
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except _UNREADABLE as error:
        raise UserError(f"{name}: its weights cannot be loaded: {one_line(error)}") from error
    return model, report


def _check_sizes(name: str, mismatched: set[tuple[str, Sequence[int], Sequence[int]]]) -> None:
    if mismatched:
        key, found, expected = min(mismatched)
        raise UserError(
            f"{name}: its weights do not fit its config.json: {key} is {list(found)} in the file "
            f"and {list(expected)} in the config"
        )


def _check_body(name: str, family: Family, keys: Iterable[str]) -> None:
    """Refuse weights of another body than the config's: the model would be partly random."""
    prefix = f"{family.paths.body}."
    parts = tuple(f"{path.removeprefix(prefix)}." for path in family.paths.of_body())
    wrong = sorted(key for key in keys if key.removeprefix(prefix).startswith(parts))
    if wrong:
        raise UserError(
            f"{name}: its weights do not fit its config.json: {len(wrong)} of the body's are "
            f"missing or unexpected, e.g. {wrong[0]}"
        )


def _warn_of_random_weights(name: str, task: Task, missing: Iterable[str]) -> None:
    if not (names := sorted(missing)):
        return
    head = "language-model" if task == "lm" else task
    _logger.warning(
        "%s lacks %d weights of the %s head (e.g. %s): they start at random, "
        "so train the head before trusting its predictions",
        name,
        len(names),
        head,
        names[0],
    )


def student_from_config(
    source: str | Path | Mapping[str, Any],
    teacher_config: PreTrainedConfig | None = None,
    *,
    seed: int = 0,
) -> PreTrainedModel:
    """Create a student of any size, randomly initialised, from a config file or its values.

    Args:
        source: the config's path or its values.
        teacher_config: supplies the vocabulary's size and special ids where the config omits them.
        seed: seed of the initialisation.

    Raises:
        UserError: the config can't be read, isn't valid, or has another vocabulary size than the
            teacher's.
    """
    where = "the student's config" if isinstance(source, Mapping) else str(source)
    given = dict(source) if isinstance(source, Mapping) else read_config(Path(source))
    if not isinstance(model_type := given.get("model_type"), str):
        raise UserError(f'{where}: has no "model_type", e.g. "distilbert"')
    family = family_named(model_type)
    given = _with_vocabulary(given, teacher_config, where)
    refuse_unknown_fields(where, family.model_class.config_class, given)
    try:
        config = family.model_class.config_class.from_dict(given | {"dtype": "float32"})
        if config.pad_token_id is not None and config.pad_token_id >= config.vocab_size:
            raise UserError(
                f"{where}: pad_token_id {config.pad_token_id} is outside of a vocabulary of "
                f"{config.vocab_size}: set it to the tokenizer's (a {model_type} has "
                "that of the published one by default)"
            )
        return family.new_model(config, seed)
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise UserError(f"{where}: {one_line(error)}") from error


def read_config(path: Path) -> dict[str, Any]:
    """Return the values of a config file.

    Raises:
        UserError: it isn't a JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as a JSON config: {error}") from error
    if not isinstance(values, dict):
        raise UserError(
            f"{path}: a config must be a JSON object, this is a {type(values).__name__}"
        )
    return values


def _with_vocabulary(
    given: dict[str, Any], teacher_config: PreTrainedConfig | None, where: str
) -> dict[str, Any]:
    if teacher_config is None:
        if "vocab_size" not in given:
            raise UserError(f'{where}: without a teacher it needs a "vocab_size"')
        return given
    vocabulary = {name: getattr(teacher_config, name) for name in _VOCABULARY_FIELDS}
    size = given.get("vocab_size", vocabulary["vocab_size"])
    if size != vocabulary["vocab_size"]:
        raise UserError(
            f"{where}: vocab_size {size}, but the teacher's is {vocabulary['vocab_size']}: "
            "a student uses its teacher's vocabulary, so leave vocab_size out"
        )
    return vocabulary | given
