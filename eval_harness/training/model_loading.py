"""Pretrained models with a new head for a task: loaded once, copied for every run."""

import copy
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from angels_share.errors import RunFailed, UserError, one_line
from angels_share.files import (
    is_path_error,
    reason_of_failed_write,
    replace_folder,
    sha256_of_file,
)
from angels_share.imports import resolve
from angels_share.inputs import positions_of
from angels_share.model_files import CARD, WEIGHTS
from angels_share.sealed_folder import seal
from angels_share.student_record import add_step
from angels_share.untrusted import quiet_transformers, refuse_code
from eval_harness.data.token_rows import TokenRows
from eval_harness.runs.models import folder_of
from eval_harness.runs.run import Model
from eval_harness.tasks.registry import Task
from eval_harness.training.evaluation import HeadOutputs

# Their heads read the last position of a row, which is padding here.
_UNSUPPORTED = ("xlnet",)


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

    def require_fits(
        self, name: str, noun: str, parts: Iterable[TokenRows], width: int | None = None
    ) -> None:
        """Refuse ids and lengths that the model has no embedding for: torch gives an IndexError.

        Args:
            name: how a message names the model.
            noun: how it names what is read.
            parts: what is read.
            width: what all batches are padded to, if that is fixed.

        Raises:
            UserError: names the id or the length, and what would fit.
        """
        parts, known = list(parts), self.model.config.vocab_size
        if (largest := max(int(rows.ids.max()) for rows in parts)) >= known:
            raise UserError(
                f"{name}: its tokenizer produces id {largest} and its vocab_size is {known}: they "
                "do not belong together"
            )
        longest = max(width or 0, *(int(rows.lengths.max()) for rows in parts))
        if self.max_tokens is not None and longest > self.max_tokens:
            raise UserError(
                f"{name} reads {self.max_tokens} tokens and {noun} has {longest}: pass "
                f"--max_seq_length {self.max_tokens}"
            )

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


def load_for_task(
    where: Model, task: Task, tokenizer: PreTrainedTokenizerBase, *, keeps_head: bool = False
) -> LoadedModel:
    """Load a model with a task's head, which is new even if the checkpoint has one.

    Only what a task's head shares with a masked language model's is kept, as `from_pretrained`
    keeps it: ModernBERT's transform is pre-trained. Kept whole is a head of pre-training that the
    task is about, or one that is to be evaluated as it is.

    Args:
        where: the model to load.
        task: the task, whose labels determine the head.
        tokenizer: gives the padding token if the model's config has none.
        keeps_head: whether a head that was fine-tuned is kept.

    Raises:
        UserError: the model can't be loaded, needs custom code, or its body is incomplete.
    """
    folder = str(folder_of(where))
    config = config_for(where, task)
    architecture = (config.architectures or [""])[0]
    head = task.kind.head_of(architecture) or task.kind.heads[0]
    config.finetuning_task = task.name  # recorded in a saved model
    pad_id = padding_of(where, task, config, tokenizer)
    # A head for other labels has other sizes.
    model, report = from_weights(where.name, head, folder, config, ignore_mismatched_sizes=True)
    mismatched = {key for key, *_ in report["mismatched_keys"]}
    _check_body(where, model, (*report["missing_keys"], *report["unexpected_keys"]), mismatched)
    keeps_head = keeps_head or task.kind.is_pretrained
    keep_found = keeps_head or architecture.endswith("ForMaskedLM")
    new = tuple(_new_modules(model, report["missing_keys"], keep_found=keep_found))
    if keeps_head and (new or mismatched):
        raise UserError(
            f"{where.name}: its checkpoint lacks {' and '.join(new) or min(mismatched)}: without "
            f"the whole head {task.title} can't judge it"
        )
    _check_finite(where, model, new)
    return LoadedModel(model, new, pad_id)


def from_weights(
    name: str, class_name: str, folder: str | Path, config: PreTrainedConfig, **more: Any
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Load safetensors in float32, without running code; return the model and what was missing.

    Args:
        name: how an error names the model.
        class_name: transformers' class.
        folder: the folder of its files.
        config: its config.
        more: further arguments of `from_pretrained`.

    Raises:
        UserError: its files can't be loaded.
    """
    try:
        with quiet_transformers():
            loaded: tuple[PreTrainedModel, dict[str, Any]] = getattr(
                transformers, class_name
            ).from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **more,
            )
    except MemoryError:
        raise
    except Exception as error:  # damaged files give errors of any type
        raise UserError(f"{name}: cannot be loaded: {one_line(error)}") from error
    return loaded


def config_for(where: Model, task: Task) -> PreTrainedConfig:
    """Return a model's config with a task's head.

    Args:
        where: the model.
        task: the task.

    Raises:
        UserError: it can't be used.
    """
    folder = str(folder_of(where))
    outputs: HeadOutputs = resolve(task.kind.outputs)(task)
    try:
        values, _ = PreTrainedConfig.get_config_dict(folder)
        refuse_code(where.name, values)
        _refuse_unsupported(where, values)
        if task.kind.is_pretrained:
            return AutoConfig.from_pretrained(folder, trust_remote_code=False)
        return AutoConfig.from_pretrained(
            folder,
            trust_remote_code=False,
            num_labels=len(outputs.names),
            id2label=dict(enumerate(outputs.names)),
            label2id={name: number for number, name in enumerate(outputs.names)},
            problem_type=outputs.problem_type,
        )
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise UserError(f"{where.name}: its config cannot be used: {one_line(error)}") from error


def _refuse_unsupported(where: Model, values: Mapping[str, Any]) -> None:
    if values.get("model_type") in _UNSUPPORTED:
        raise UserError(f"{where.name}: {values['model_type']} models are not supported")


def padding_of(
    where: Model, task: Task, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase
) -> int:
    """Return the token that batches are padded with, which the config of a new head learns.

    Args:
        where: the model.
        task: the task.
        config: its config for the task, changed where it has no padding token.
        tokenizer: its tokenizer.

    Raises:
        UserError: there is none.
    """
    if config.pad_token_id is not None:
        return int(config.pad_token_id)
    if task.kind.is_pretrained:
        # Masked out wherever it stands. The config stays: what it calls padding doesn't learn.
        return 0
    pad_id = config.pad_token_id = _pad_id(where, tokenizer)
    return pad_id


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


def _check_finite(where: Model, model: PreTrainedModel, new: Iterable[str]) -> None:
    """Refuse NaN and infinity in what was loaded: training would blame the learning rate."""
    initialized = tuple(f"{name}." for name in new)
    for name, weight in model.named_parameters():
        if not name.startswith(initialized) and not torch.isfinite(weight).all():
            raise UserError(
                f"{where.name}: its weights are damaged: {name} contains NaN or infinity"
            )


def _new_modules(
    model: PreTrainedModel, missing: Iterable[str], *, keep_found: bool
) -> Iterator[str]:
    """Yield the names of the modules with parameters of their own that must be initialized.

    Args:
        model: the model with its task's head.
        missing: the parameters that its checkpoint lacks.
        keep_found: whether parts of the head that the checkpoint has are kept.
    """
    prefix = f"{model.base_model_prefix}."
    absent = {key.rpartition(".")[0] for key in missing}
    for name, module in model.named_modules():
        has_parameters = next(module.parameters(recurse=False), None) is not None
        is_head = not name.startswith(prefix)
        if has_parameters and (name in absent or (is_head and not keep_found)):
            yield name


def save_weights(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    steps: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Save a fine-tuned model as a sealed folder: complete or not at all.

    Args:
        folder: the folder to write; an existing one is replaced, but for its card.
        model: the model.
        tokenizer: its tokenizer.
        steps: how the model was made, the last step without what can be read from its weights.

    Raises:
        UserError: the folder can't be written to.
        RunFailed: the disk is full.
    """
    # What killed processes left; the run's lease lets no other live one save here.
    for leftover in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        with quiet_transformers():
            model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        seal(temporary)
        for number, step in enumerate(steps, 1):  # not sealed: an export adds to them
            add_step(temporary, _completed(step, temporary) if number == len(steps) else step)
        if (card := folder / CARD).is_file():  # not sealed: people write into it
            shutil.copyfile(card, temporary / CARD)
        replace_folder(temporary, folder, folder.with_name(f".{folder.name}.replaced.tmp"))
    except (OSError, SafetensorError) as error:
        reason = reason_of_failed_write(error, temporary)
        failure = UserError if isinstance(error, OSError) and is_path_error(error) else RunFailed
        raise failure(f"{folder}: the weights could not be saved: {reason}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _completed(step: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a step with the file that it made: one, or none that could be named."""
    weights = folder / WEIGHTS
    if not weights.is_file():
        return {**step, "file": f"{WEIGHTS}.index.json"}
    made = {"file": WEIGHTS, "sha256": sha256_of_file(weights), "bytes": weights.stat().st_size}
    return {**step, **made}
