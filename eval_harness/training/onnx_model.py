"""An exported model in onnxruntime, with what evaluations need of a model of transformers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from angels_share.errors import UserError
from angels_share.exported.session import OnnxSession
from eval_harness.runs.models import max_tokens_of
from eval_harness.runs.onnx_files import is_read_alone
from eval_harness.runs.run import Model
from eval_harness.tasks.kinds import QUESTIONS
from eval_harness.tasks.registry import Task
from eval_harness.training.model_loading import LoadedModel, config_for, padding_of

_OF_ANSWERS = ("start_logits", "end_logits")


class OnnxModel:
    """An ONNX file that is called as a model of transformers is.

    Args:
        session: the opened file.
        config: the config of the model that it was made from.
        read_alone: whether each example is computed alone, without padding, since its answer
            would else depend on what shares its batch.
    """

    device = torch.device("cpu")

    def __init__(self, session: OnnxSession, config: Any, *, read_alone: bool) -> None:
        self.config = config
        self._session, self._read_alone = session, read_alone

    def eval(self) -> Self:
        """Return itself: nothing in it is of training."""
        return self

    def __call__(self, **inputs: Tensor) -> Any:
        """Return the outputs of a batch.

        Args:
            inputs: as `forward` takes them.
        """
        return self.forward(**inputs)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
    ) -> Any:
        """Return the outputs of a batch that is padded on the right.

        Args:
            input_ids: the tokens.
            attention_mask: 1 for those that aren't padding.
            token_type_ids: the part of a pair that they are of; 0 where not given.
        """
        batch = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            batch["token_type_ids"] = token_type_ids
        if self._read_alone:
            return SimpleNamespace(**self._one_by_one(batch, int(input_ids.shape[1])))
        found = self._session.run(batch)
        return SimpleNamespace(**{name: torch.from_numpy(each) for name, each in found.items()})

    def _one_by_one(self, batch: dict[str, Tensor], width: int) -> dict[str, Tensor]:
        rows: list[dict[str, Tensor]] = []
        for index, length in enumerate(batch["attention_mask"].sum(dim=1).tolist()):
            alone = {name: each[index : index + 1, :length] for name, each in batch.items()}
            rows.append(
                {
                    name: _padded(name, torch.from_numpy(each), width)
                    for name, each in self._session.run(alone).items()
                }
            )
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def _padded(name: str, output: Tensor, width: int) -> Tensor:
    """Return one example's output as wide as its batch, if it has a value for every token."""
    if name not in _OF_ANSWERS and output.ndim < 3:
        return output
    missing = width - output.shape[1]
    return functional.pad(output, (*(0, 0) * (output.ndim - 2), 0, missing))


@dataclass(frozen=True)
class LoadedFile(LoadedModel):
    """An exported model, which no run changes."""

    positions: int | None = None

    @property
    def max_tokens(self) -> int | None:
        """The maximum sequence length in tokens; None if its config doesn't tell."""
        return self.positions

    def copy(self, seed: int) -> Any:
        """Return the model itself.

        Args:
            seed: not used: nothing of it is new.
        """
        del seed
        return self.model


def load_file(where: Model, task: Task, tokenizer: PreTrainedTokenizerBase) -> LoadedFile:
    """Open an exported model that has a task's head.

    Args:
        where: the model.
        task: the task, whose labels its outputs must have.
        tokenizer: gives the padding token if the model's config has none.

    Raises:
        UserError: it can't be opened, or its outputs are another head's.
    """
    config = config_for(where, task)
    path = Path(where.source)
    session = OnnxSession(path, threads=torch.get_num_threads())
    _check_outputs(path, session, task, config)
    model = OnnxModel(session, config, read_alone=is_read_alone(where))
    pad_id = padding_of(where, task, config, tokenizer)
    return LoadedFile(model, (), pad_id, positions=max_tokens_of(where))


def _check_outputs(path: Path, session: OnnxSession, task: Task, config: Any) -> None:
    """Refuse a file without the task's head: its config may be of another model."""
    wanted = _OF_ANSWERS if task.kind == QUESTIONS else ("logits",)
    if not {*wanted} <= session.outputs.keys():
        found = " and ".join(session.outputs)
        raise UserError(
            f"{path}: gives {found}, and {task.title} needs {' and '.join(wanted)}: export a model "
            "that was fine-tuned on it"
        )
    if task.kind == QUESTIONS:
        return
    expected = config.vocab_size if task.kind.is_pretrained else config.num_labels
    size: Sequence[Any] = session.outputs["logits"]
    if isinstance(size[-1], int) and size[-1] != expected:
        raise UserError(
            f"{path}: gives {size[-1]} logits and the config beside it says {expected}: export the "
            "model again"
        )
