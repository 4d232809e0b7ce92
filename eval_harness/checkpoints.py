"""A model as it was published, with a new head for a task: loaded once, copied for every run."""

import copy
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)
from transformers.utils.logging import (
    disable_progress_bar,
    enable_progress_bar,
    is_progress_bar_enabled,
)

from angels_share.errors import UserError
from angels_share.untrusted import refuse_code
from eval_harness.runs import Model
from eval_harness.tasks import Task

_UNREADABLE = (OSError, ValueError, KeyError, StrictDataclassError, SafetensorError)


@dataclass(frozen=True)
class Pristine:
    """A model in float32 on the CPU, whatever its checkpoint holds, and what of it starts new."""

    model: PreTrainedModel
    new: tuple[str, ...]
    """Names of the modules that the checkpoint doesn't have, the head's among them."""

    def copy(self, seed: int) -> PreTrainedModel:
        """A model of its own for a run: the body as published, all that is new from the seed."""
        model = copy.deepcopy(self.model)
        set_seed(seed)
        for name in self.new:
            module = model.get_submodule(name)
            for weight in module.parameters(recurse=False):
                # Else transformers would take it for loaded and leave it as it is.
                weight._is_hf_initialized = False
            model._init_weights(module)
        return model


def load_pristine(where: Model, task: Task, pad_id: int) -> Pristine:
    """Loads a model for a task's labels. Its head always starts new, also where it has one.

    Args:
        where: what to load.
        task: whose labels the head has.
        pad_id: what batches are padded with.

    Raises:
        UserError: it can't be loaded without running code, or its body is incomplete.
    """
    config = _config(where, task, pad_id)
    try:
        with _unreported():
            model, report = AutoModelForSequenceClassification.from_pretrained(
                where.source,
                revision=where.revision,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # of a head for other labels
                output_loading_info=True,
            )
    except _UNREADABLE as error:
        raise UserError(f"{where.name}: cannot be loaded: {_one_line(error)}") from error
    mismatched = {key for key, *_ in report["mismatched_keys"]}
    _check_body(where, model, report["missing_keys"], mismatched)
    return Pristine(model, tuple(_new_modules(model, report["missing_keys"])))


def _config(where: Model, task: Task, pad_id: int) -> PreTrainedConfig:
    names = task.labels or ("score",)
    try:
        values, _ = PreTrainedConfig.get_config_dict(where.source, revision=where.revision)
        refuse_code(where.name, values)
        return AutoConfig.from_pretrained(
            where.source,
            revision=where.revision,
            trust_remote_code=False,
            num_labels=len(names),
            id2label=dict(enumerate(names)),
            label2id={name: number for number, name in enumerate(names)},
            problem_type="regression" if task.is_regression else "single_label_classification",
            pad_token_id=pad_id,
        )
    except _UNREADABLE as error:
        raise UserError(f"{where.name}: its config cannot be used: {_one_line(error)}") from error


def _check_body(
    where: Model, model: PreTrainedModel, missing: Iterable[str], mismatched: Iterable[str]
) -> None:
    """Refuses a body that would silently be half random. A pooler is often left out, rightly."""
    prefix = f"{model.base_model_prefix}."
    wrong = [key for key in missing if key.startswith(prefix) and ".pooler." not in key]
    wrong += [key for key in mismatched if key.startswith(prefix)]
    if wrong:
        raise UserError(
            f"{where.name}: its weights do not fit its config.json: {len(wrong)} of the body's are "
            f"missing or of another size, {min(wrong)} first"
        )


def _new_modules(model: PreTrainedModel, missing: Iterable[str]) -> Iterator[str]:
    prefix = f"{model.base_model_prefix}."
    absent = {key.rpartition(".")[0] for key in missing}
    for name, module in model.named_modules():
        own = next(module.parameters(recurse=False), None) is not None
        if own and (name in absent or not name.startswith(prefix)):
            yield name


@contextmanager
def _unreported() -> Iterator[None]:
    """Keeps transformers from printing a bar, and a table of what is known to start new."""
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(_is_error)
    had_bar = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        yield
    finally:
        logger.removeFilter(_is_error)
        if had_bar:
            enable_progress_bar()


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def save_weights(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Writes a fine-tuned model for something else to read: the whole folder, or none."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
