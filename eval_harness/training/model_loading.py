"""A model as it was published, with a new head for a task: loaded once, copied for every run."""

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
from angels_share.untrusted import refuse_code, unreported
from eval_harness.runs.run import Model
from eval_harness.tasks.registry import Task
from eval_harness.training.evaluation import HeadOutputs

# Their answer is read at the end of a row, which is padding here.
_UNSUITED = ("xlnet",)
_UNREADABLE = (OSError, ValueError, KeyError, StrictDataclassError, SafetensorError)


@dataclass(frozen=True)
class LoadedModel:
    """A model in float32 on the CPU, whatever its checkpoint holds, and what of it starts new."""

    model: PreTrainedModel
    new: tuple[str, ...]
    """Names of the modules that the checkpoint doesn't have, the head's among them."""
    pad_id: int
    """What batches are padded with."""

    @property
    def max_tokens(self) -> int | None:
        """Tokens of the longest text that has positions, if they are counted."""
        return positions_of(self.model)

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


def load_model(where: Model, task: Task, tokenizer: PreTrainedTokenizerBase) -> LoadedModel:
    """Loads a model with a task's head. The head always starts new, also where it has one.

    Args:
        where: what to load.
        task: whose labels the head has.
        tokenizer: says what batches are padded with, where the model's config doesn't.

    Raises:
        UserError: it can't be loaded without running code, or its body is incomplete.
    """
    config = _config(where, task)
    config.finetuning_task = task.name  # what a kept model says that it is for
    if config.pad_token_id is None:
        config.pad_token_id = _pad_id(where, tokenizer)
    try:
        with unreported():
            model, report = getattr(transformers, task.kind.head).from_pretrained(
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
    _check_body(where, model, (*report["missing_keys"], *report["unexpected_keys"]), mismatched)
    new = tuple(_new_modules(model, report["missing_keys"]))
    return LoadedModel(model, new, config.pad_token_id)


def _config(where: Model, task: Task) -> PreTrainedConfig:
    outputs: HeadOutputs = resolve(task.kind.outputs)(task)
    try:
        values, _ = PreTrainedConfig.get_config_dict(where.source, revision=where.revision)
        refuse_code(where.name, values)
        if values.get("model_type") in _UNSUITED:
            raise UserError(f"{where.name}: {values['model_type']} models are not judged here")
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
    """GPT-2 has no token for padding; what ends a text serves."""
    for found in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if found is not None:
            return int(found)
    raise UserError(f"{where.name}: neither config nor tokenizer names a token to pad with")


def _check_body(
    where: Model, model: PreTrainedModel, differing: Iterable[str], mismatched: Iterable[str]
) -> None:
    """Refuses a body that would silently be half random, or be cut. A pooler may come or go."""
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
    prefix = f"{model.base_model_prefix}."
    absent = {key.rpartition(".")[0] for key in missing}
    for name, module in model.named_modules():
        own = next(module.parameters(recurse=False), None) is not None
        if own and (name in absent or not name.startswith(prefix)):
            yield name


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def save_weights(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Writes a fine-tuned model for something else to read: the whole folder, or none."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with unreported():
            model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        seal(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
