"""Pretrained models with a new head for a task: loaded once, copied for every run."""

import copy
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from angels_share.errors import UserError
from angels_share.imports import resolve
from angels_share.inputs import positions_of
from angels_share.sealed_folder import seal
from angels_share.untrusted import quiet_transformers, refuse_code
from eval_harness.runs.run import Model
from eval_harness.tasks.registry import Task
from eval_harness.training.evaluation import HeadOutputs

# Their heads read the last position of a row, which is padding here.
_UNSUPPORTED = ("xlnet",)
_UNREADABLE = (OSError, ValueError, KeyError, StrictDataclassError, SafetensorError)


@dataclass(frozen=True)
class LoadedModel:
    """A model in float32 on the CPU, whatever its checkpoint's type, and which parts are new."""

    model: PreTrainedModel
    new: tuple[str, ...]
    """Names of the modules to initialize: those of the head, and any not in the checkpoint."""
    pad_id: int
    """The token id that batches are padded with."""

    @property
    def max_tokens(self) -> int | None:
        """The maximum sequence length in tokens; None if the model has no limit."""
        return positions_of(self.model)

    def copy(self, seed: int) -> PreTrainedModel:
        """Return a copy for a run, with the new modules initialized from the seed."""
        model = copy.deepcopy(self.model)
        set_seed(seed)
        for name in self.new:
            module = model.get_submodule(name)
            for weight in module.parameters(recurse=False):
                # Otherwise transformers considers it loaded and does not initialize it.
                weight._is_hf_initialized = False
            model._init_weights(module)
        return model


def load_for_task(where: Model, task: Task, tokenizer: PreTrainedTokenizerBase) -> LoadedModel:
    """Load a model with a task's head, which is always new, even if the checkpoint has one.

    Args:
        where: the model to load.
        task: the task, whose labels determine the head.
        tokenizer: gives the padding token if the model's config has none.

    Raises:
        UserError: the model can't be loaded, needs custom code, or its body is incomplete.
    """
    config = _config(where, task)
    config.finetuning_task = task.name  # recorded in a saved model
    if config.pad_token_id is None:
        config.pad_token_id = _pad_id(where, tokenizer)
    try:
        with quiet_transformers():
            model, report = getattr(transformers, task.kind.head).from_pretrained(
                where.source,
                revision=where.revision,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # a head for other labels
                output_loading_info=True,
            )
    except _UNREADABLE as error:
        raise UserError(f"{where.name}: cannot be loaded: {_one_line(error)}") from error
    mismatched = {key for key, *_ in report["mismatched_keys"]}
    _check_body(where, model, (*report["missing_keys"], *report["unexpected_keys"]), mismatched)
    new = tuple(_new_modules(model, report["missing_keys"]))
    return LoadedModel(model, new, config.pad_token_id)


def _config(where: Model, task: Task) -> PreTrainedConfig:
    outputs: HeadOutputs = resolve(task.kind.outputs)(task)
    try:
        values, _ = PreTrainedConfig.get_config_dict(where.source, revision=where.revision)
        refuse_code(where.name, values)
        if values.get("model_type") in _UNSUPPORTED:
            raise UserError(f"{where.name}: {values['model_type']} models are not supported")
        return AutoConfig.from_pretrained(
            where.source,
            revision=where.revision,
            trust_remote_code=False,
            num_labels=len(outputs.names),
            id2label=dict(enumerate(outputs.names)),
            label2id={name: number for number, name in enumerate(outputs.names)},
            problem_type=outputs.problem_type,
        )
    except _UNREADABLE as error:
        raise UserError(f"{where.name}: its config cannot be used: {_one_line(error)}") from error


def _pad_id(where: Model, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the padding token, or for models such as GPT-2 the end-of-text token."""
    for found in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if found is not None:
            return int(found)
    raise UserError(f"{where.name}: neither its config nor its tokenizer has a padding token")


def _check_body(
    where: Model, model: PreTrainedModel, differing: Iterable[str], mismatched: Iterable[str]
) -> None:
    """Refuse a body that would be partly random or truncated; the pooler is optional."""
    prefix = f"{model.base_model_prefix}."
    optional = (".pooler.", "position_ids")
    wrong = {
        key
        for key in differing
        if key.startswith(prefix) and not any(part in key for part in optional)
    }
    wrong |= {key for key in mismatched if key.startswith(prefix)}
    if wrong:
        raise UserError(
            f"{where.name}: its weights do not fit its config.json: {len(wrong)} of the body's are "
            f"missing, left over or of another size, {min(wrong)} first"
        )


def _new_modules(model: PreTrainedModel, missing: Iterable[str]) -> Iterator[str]:
    """Yield the names of the modules with parameters of their own that must be initialized."""
    prefix = f"{model.base_model_prefix}."
    absent = {key.rpartition(".")[0] for key in missing}
    for name, module in model.named_modules():
        has_parameters = next(module.parameters(recurse=False), None) is not None
        if has_parameters and (name in absent or not name.startswith(prefix)):
            yield name


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def save_weights(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Save a fine-tuned model as a sealed folder: complete or not at all.

    Args:
        folder: the folder to write; an existing one is replaced.
        model: the model.
        tokenizer: its tokenizer.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with quiet_transformers():
            model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        seal(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
