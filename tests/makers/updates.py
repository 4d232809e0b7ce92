"""One update of each kind of objective, for tests of settings that must not change it.

Run as a script under `torchrun` it computes the same update in several processes:
`torchrun --nproc_per_node 2 tests/makers/updates.py OUT_DIR`.
"""

import sys
from pathlib import Path

import numpy as np
import safetensors.torch
import tiny
import torch
import transformers

from distil_trainer import DistilTrainer, DistilTrainingArguments, make_student
from distil_trainer.models.families import family_of
from distil_trainer.training.sharding import whole

KINDS = ("masked", "restricted", "causal", "classification", "tokens", "questions")
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
EXAMPLES = 8


def sequences(vocab_size, first=5, last=3, *, count=EXAMPLES, longest=24):
    """Return token sequences of very different lengths, so that means of means would be wrong."""
    rng = np.random.default_rng(0)
    lengths = np.linspace(4, longest, count).astype(int)
    return [
        {"input_ids": [2, *rng.integers(first, vocab_size, length), last]} for length in lengths
    ]


def _tasks(kind):
    rng = np.random.default_rng(1)
    rows = sequences(160)
    for row in rows:
        size = len(row["input_ids"])
        row["attention_mask"] = [1] * size
        if kind == "classification":
            row["labels"] = int(rng.integers(0, 3))
        elif kind == "tokens":
            row["labels"] = rng.integers(0, 3, size).tolist()
        else:
            row["start_positions"], row["end_positions"] = (
                int(n) for n in rng.integers(0, size, 2)
            )
    return rows


def pair(kind):
    """Return a teacher, a student without dropout, and their data."""
    if kind in ("masked", "restricted"):
        teacher = tiny.bert(layers=3, **NO_DROPOUT)
        return teacher, make_student(teacher, num_layers=2), sequences(160)
    if kind == "causal":
        teacher = tiny.gpt2(layers=3, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
        return teacher, make_student(teacher, num_layers=2), sequences(400)
    head = {
        "classification": "SequenceClassification",
        "tokens": "TokenClassification",
        "questions": "QuestionAnswering",
    }[kind]
    teacher_class = getattr(transformers, f"BertFor{head}")
    student_class = getattr(transformers, f"DistilBertFor{head}")
    labels = {} if kind == "questions" else {"num_labels": 3}
    quiet = {
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "qa_dropout": 0.0,
        "seq_classif_dropout": 0.0,
    }
    teacher = tiny.bert(layers=3, model_class=teacher_class, **NO_DROPOUT, **labels)
    student = tiny.distilbert(seed=1, model_class=student_class, **quiet, **labels)
    return teacher, student, _tasks(kind)


def trainer_for(
    kind,
    output_dir,
    *,
    teacher=None,
    student=None,
    data=None,
    eval_data=None,
    tokenizer=None,
    **settings,
):
    """Return a trainer for a kind of objective, with everything at its smallest."""
    made_teacher, made_student, made_data = pair(kind)
    data = made_data if data is None else data
    if tokenizer is None:
        tokenizer = tiny.byte_bpe() if kind == "causal" else tiny.wordpiece()
    extra = {}
    if kind == "tokens":
        extra["data_collator"] = transformers.DataCollatorForTokenClassification(tokenizer)
    elif kind in ("classification", "questions"):
        extra["data_collator"] = transformers.DataCollatorWithPadding(tokenizer)
    arguments = {
        "output_dir": str(output_dir),
        "max_steps": 1,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "save_strategy": "no",
        "restrict_ce_to_mask": kind == "restricted",
        "alpha_mse": 0.1 if kind in ("masked", "causal") else None,
        "alpha_rel": 0.5 if kind in ("masked", "causal") else None,
    }
    return DistilTrainer(
        made_student if student is None else student,
        DistilTrainingArguments(**(arguments | settings)),
        teacher=made_teacher if teacher is None else teacher,
        train_dataset=data,
        eval_dataset=eval_data,
        processing_class=tokenizer,
        **extra,
    )


def trainer_of(name, output_dir, **settings):
    """Return a trainer that distils an architecture's small model of four layers into two."""
    teacher = tiny.ARCHITECTURES[name]()
    models = {"teacher": teacher, "student": make_student(teacher, num_layers=2)}
    return trainer_for(
        "causal" if family_of(teacher).causal else "masked",
        output_dir,
        tokenizer=tiny.tokenizer_for(name),
        **models | {"data": sequences(160, first=10)} | settings,
    )


class Gradients(transformers.TrainerCallback):
    """Stores the gradient of the last update."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        self.last = {
            name: whole(parameter.grad).clone()
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }


def one_update(kind, output_dir, *, evaluated=False, **settings):
    """Return the loss and unclipped gradient of one update over all examples, and its trainer.

    It may have been evaluated before.
    """
    settings = {"max_grad_norm": 1e9, "logging_steps": 1} | settings
    trainer = trainer_for(kind, output_dir, **settings)
    seen = Gradients()
    trainer.add_callback(seen)
    if evaluated:
        trainer.evaluate(pair(kind)[2])
    trainer.train()
    return trainer.state.log_history[0]["loss"], seen.last, trainer


def main(folder):
    """Run one update of every kind under torchrun; each process writes its loss and tensors."""
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else None
    for kind in KINDS:
        # One that is evaluated first must be wrapped in DDP all the same.
        first = {"evaluated": kind in {"restricted", "classification"}}
        loss, gradient, trainer = one_update(kind, folder, per_device_train_batch_size=4, **first)
        rank = trainer.args.process_index
        weights = {f"after.{name}": p.detach() for name, p in trainer.objective.named_parameters()}
        gradient = {f"gradient.{name}": value for name, value in gradient.items()}
        tensors = {**weights, **gradient, "loss": torch.tensor(loss)}
        if trainer.objective.mode != "task":
            held_out = trainer.evaluate(pair(kind)[2])["eval_loss"]
            tensors["eval_loss"] = torch.tensor(held_out, dtype=torch.float64)
        tensors = {name: value.clone().contiguous() for name, value in tensors.items()}
        safetensors.torch.save_file(tensors, Path(folder) / f"{kind}-{rank}.safetensors")


if __name__ == "__main__":
    main(sys.argv[1])
