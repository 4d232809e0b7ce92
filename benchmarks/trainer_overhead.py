"""DistilTrainer against a bare loop over the same step: the overhead of the Trainer.

    python -m benchmarks.trainer_overhead

Both train the same student on the same batches: loading, masking, teacher, student, losses,
backward, clipping, fused AdamW. The bare loop calls the same objective by hand and does nothing
else. They take turns; the medians over the steps of all turns are compared. Sequence lengths are
lognormal, so padding and the time spent waiting for batches are similar to those of real text.
"""

import argparse
import gc
import statistics
import tempfile
import time
from typing import Any

import numpy as np
import torch
import transformers

from benchmarks import machine
from benchmarks.setting import SIZES, Size, teacher_config
from distil_trainer import DistilTrainer, DistilTrainingArguments, make_student
from distil_trainer.data.batches import EpochLoader
from distil_trainer.data.sequences import Rows


class SpecialTokens:
    """The part of a tokenizer that the trainer uses."""

    pad_token_id, mask_token_id = 0, 103
    all_special_ids = (0, 100, 101, 102, 103)


class Clock(transformers.TrainerCallback):
    """Records when each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Record the time; called by the Trainer."""
        self.ends.append(time.perf_counter())


def make_trainer(size: Size, steps: int, folder: str) -> DistilTrainer:
    torch.manual_seed(0)
    teacher = transformers.BertForMaskedLM(teacher_config(size))
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(4.2, 0.5, 5000), 12, size.length).astype(int)
    rows = [{"input_ids": rng.integers(1000, size.vocabulary, length)} for length in lengths]
    arguments = DistilTrainingArguments(
        output_dir=folder,
        max_steps=steps,
        tokens_per_batch=size.tokens,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        logging_steps=max(steps - 1, 1),
        use_cpu=True,
    )
    return DistilTrainer(
        make_student(teacher),
        arguments,
        teacher=teacher,
        train_dataset=Rows(rows),
        processing_class=SpecialTokens(),
    )


def time_trainer(trainer: DistilTrainer, _steps: int) -> list[float]:
    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    return list(np.diff(clock.ends))


def time_bare_loop(trainer: DistilTrainer, steps: int) -> list[float]:
    """Run the same steps by hand; return the seconds of each."""
    objective, (teacher,) = trainer.objective, trainer.teachers
    student = trainer.student.train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=5e-4, betas=(0.9, 0.98), fused=True)
    alphas = [trainer.weights[name] for name in objective.weight_names]
    loader = trainer.get_train_dataloader()
    assert isinstance(loader, EpochLoader)
    ends = []
    for step, raw in enumerate(loader):
        batch = objective.prepare(raw)
        weights = [
            alpha / max(int(count), 1) if alpha else 0.0
            for alpha, count in zip(alphas, objective.counts(batch), strict=True)
        ]
        objective(batch, [objective.run_teacher(teacher, batch)], weights).objective.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()
        ends.append(time.perf_counter())
        if step + 1 == steps:
            break
    return list(np.diff(ends))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=8, help="steps of each in a turn [8]")
    parser.add_argument("--turns", type=int, default=6, help="turns of each [6]")
    options = parser.parse_args()
    size = SIZES["mini", "cpu"]
    loops = {"bare loop": time_bare_loop, "DistilTrainer": time_trainer}
    times: dict[str, list[float]] = {name: [] for name in loops}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(options.turns):
            # Each gets a new student, and goes first in every other turn: the second one finds
            # memory in another state, which alone made a difference of 7 %.
            for name in sorted(loops, reverse=bool(turn % 2)):
                trainer = make_trainer(size, options.steps, folder)
                times[name] += loops[name](trainer, options.steps)
                if name == "DistilTrainer":
                    history = trainer.state.log_history
                del trainer
                gc.collect()
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    print(machine.describe("cpu"))
    print("| | s/step | ratio |\n|---|---|---|")
    for name, median in medians.items():
        print(f"| {name} | {median:.3f} | {median / medians['bare loop']:.3f} |")
    last = next(entry for entry in history if "wait_share" in entry)
    print(f"waiting for batches: {last['wait_share']:.2%}; padding: {last['padding_share']:.2%}")


if __name__ == "__main__":
    main()
