"""A student that is spread over two processes learns, is saved and goes on like one that isn't."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers
import updates
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.optim import AdamW

from angels_share.errors import UserError
from distil_trainer.training.sharding import load_state, load_weights, whole_state, whole_weights

CASES = {
    "masked": {"max_grad_norm": 0.1},
    "causal": {"optim": "adamw_torch_fused"},
    "restricted": {"optim": "sgd", "alpha_ce": 0.0, "alpha_cos": 0.0},
    "accumulated": {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "gradient_checkpointing": True,
    },
}
STEPS = {"max_steps": 2, "warmup_steps": 0, "learning_rate": 1e-2}


def several_updates(case, folder, **settings):
    """Return losses, the last gradient and the trainer after two updates of all examples."""
    kind = case if case in updates.KINDS else "masked"
    arguments = {"max_grad_norm": 1.0, **STEPS, **CASES[case], **settings}
    _, gradient, trainer = updates.one_update(kind, folder, **arguments)
    return kind, gradient, trainer


def numbers(trainer):
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    return [[entry["loss"], entry["grad_norm"]] for entry in history]


def long_run(folder, **settings):
    """A run with dropout of two epochs of two steps that evaluates, saves, and keeps its best."""
    teacher = updates.tiny.bert(layers=2)
    arguments = {
        "student": updates.make_student(teacher, num_layers=1),
        "teacher": teacher,
        "eval_data": updates.sequences(160),
        "max_steps": 4,
        "per_device_train_batch_size": 2,
        "save_strategy": "steps",
        "save_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "learning_rate": 1e-2,
        "warmup_steps": 0,
    }
    return updates.trainer_for("masked", folder, **(arguments | settings))


def main(folder):
    """Under torchrun: the updates of every case, a long run, and one that resumes in its middle."""
    folder = Path(folder)
    for case in CASES:
        settings = {"per_device_train_batch_size": 4} | CASES[case] | {"shard_student": True}
        if case == "causal" and os.environ["RANK"] == "1":  # the first process's student counts
            settings["student"] = updates.tiny.shaken(updates.pair(case)[1])
        kind, gradient, trainer = several_updates(case, folder / case, **settings)
        parameters = list(trainer.objective.parameters())
        held = [each.to_local().numel() for each in parameters if isinstance(each, DTensor)]
        layers = trainer.student.get_submodule(trainer.objective.family.paths.layers)
        facts = {
            "by_layer": all(isinstance(each, FSDPModule) for each in layers.children()),
            "numbers": numbers(trainer),
            "sharded": len(held) == len(parameters),
            "held": sum(held) / sum(each.numel() for each in parameters),
            "eval_loss": trainer.evaluate(updates.pair(kind)[2])["eval_loss"],
        }
        trainer.save_model()
        rank = trainer.args.process_index
        (folder / f"{case}-{rank}.json").write_text(json.dumps(facts))
        gradient = {name: value.contiguous() for name, value in gradient.items()}
        safetensors.torch.save_file(gradient, folder / f"{case}-{rank}.safetensors")
    trainer = long_run(folder / "whole", shard_student=True, load_best_model_at_end=True)
    trainer.train()
    trainer.save_model()
    here = folder / "resumed"
    if rank == 0:
        shutil.copytree(folder / "whole" / "checkpoint-3", here / "checkpoint-3")
    torch.distributed.barrier()
    trainer = long_run(here, shard_student=True)
    trainer.train(resume_from_checkpoint="auto")
    (folder / f"resumed-{rank}.txt").write_text(str(trainer.first_step))


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """What two processes over the loopback left."""
    folder = tmp_path_factory.mktemp("sharded")
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2",
        "--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0", __file__, str(folder),
    ]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return folder


@pytest.mark.parametrize("case", CASES)
def test_parts_learn_what_the_whole_learns(case, sharded, tmp_path):
    """Prevents DDP under another name, and a gradient, norm or update of a part alone."""
    kind, gradient, trainer = several_updates(
        case, tmp_path, **{**CASES[case], "per_device_train_batch_size": 8 // _steps_of(case)}
    )
    facts = [json.loads((sharded / f"{case}-{rank}.json").read_text()) for rank in (0, 1)]
    assert [each["sharded"] for each in facts] == [True, True]
    assert [each["by_layer"] for each in facts] == [True, True]  # else all is gathered at once
    assert [each["held"] for each in facts] == pytest.approx([0.5, 0.5], abs=0.02)
    for each in facts:
        for ours, theirs in zip(each["numbers"], numbers(trainer), strict=True):
            assert ours == pytest.approx(theirs, rel=1e-3)
        assert each["eval_loss"] == pytest.approx(
            trainer.evaluate(updates.pair(kind)[2])["eval_loss"], rel=1e-3
        )
    parts = safetensors.torch.load_file(sharded / f"{case}-0.safetensors")
    assert parts.keys() == gradient.keys()
    for name, value in gradient.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-2, atol=1e-4, msg=name)
    loaded = type(trainer.student).from_pretrained(sharded / case)
    for name, value in trainer.student.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=1e-2, atol=1e-3, msg=name)


def _steps_of(case):
    return CASES[case].get("gradient_accumulation_steps", 1)


def test_a_sharded_run_resumes_to_the_same_bits(sharded):
    """Prevents a part of the weights or of the optimizer's state from going to another process."""
    # A run from the beginning would have the same bits.
    assert [(sharded / f"resumed-{rank}.txt").read_text() for rank in (0, 1)] == ["3", "3"]
    whole, resumed = (
        safetensors.torch.load_file(sharded / name / "checkpoint-4" / "model.safetensors")
        for name in ("whole", "resumed")
    )
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), f"{name} differs"


def test_the_best_of_a_sharded_run(sharded):
    """Prevents the last weights from being saved as the best, or parts in place of the whole."""
    state = json.loads((sharded / "whole" / "checkpoint-4" / "trainer_state.json").read_text())
    best = Path(state["best_model_checkpoint"])
    models = [
        transformers.AutoModelForMaskedLM.from_pretrained(each).state_dict()
        for each in (best, sharded / "whole")
    ]
    assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())


def test_another_number_of_processes_is_another_run(sharded, tmp_path, caplog):
    """Prevents a silent change of the result, and a checkpoint that only two processes can read."""
    source = sharded / "whole" / "checkpoint-3"
    shutil.copytree(source, tmp_path / source.name)
    with pytest.raises(UserError, match=r"made with processes 2 \(now 1\), shard_student True"):
        long_run(tmp_path).train(resume_from_checkpoint=True)
    trainer = long_run(tmp_path, allow_inexact_resume=True, max_steps=3)
    with caplog.at_level(logging.WARNING):
        trainer.train(resume_from_checkpoint=True)
    assert "processes 2 (now 1), shard_student True (now None): the result will" in caplog.text
    stored = torch.load(source / "optimizer.pt", weights_only=True)["state"]
    ours = trainer.optimizer.state_dict()["state"]
    assert ours.keys() == stored.keys()
    for number, values in stored.items():
        assert torch.equal(ours[number]["exp_avg"], values["exp_avg"])
    assert trainer.state.global_step == 3
    weights = safetensors.torch.load_file(source / "model.safetensors")
    assert all(torch.equal(trainer.student.state_dict()[n], v) for n, v in weights.items())


def test_what_is_not_sharded_goes_through_unchanged(tmp_path):
    """Prevents tied weights from coming apart, and state that only a sharded run can read."""
    student = updates.pair("masked")[1]
    weights = whole_weights(student, student, keep=True)
    assert {n: v.data_ptr() for n, v in weights.items()} == {
        n: v.data_ptr() for n, v in student.state_dict().items()
    }
    assert whole_weights(student, student, keep=False) == {}
    student.save_pretrained(tmp_path)
    other = updates.make_student(updates.tiny.bert(layers=3, seed=5), num_layers=2)
    load_weights(other, other, tmp_path / "model.safetensors")
    assert all(torch.equal(v, other.state_dict()[n]) for n, v in student.state_dict().items())
    first, second = (AdamW(model.parameters()) for model in (student, other))
    sum(each.square().sum() for each in student.parameters()).backward()
    first.step()
    load_state(second, whole_state(first, keep=True))
    assert torch.equal(
        second.state_dict()["state"][0]["exp_avg"], first.state[_first(first)]["exp_avg"]
    )
    assert whole_state(first, keep=False) == {}


def _first(optimizer):
    return optimizer.param_groups[0]["params"][0]


@pytest.fixture
def two(monkeypatch, tmp_path):
    """Make arguments as in one of two processes, which don't exist."""
    monkeypatch.setattr(updates.DistilTrainingArguments, "world_size", 2)

    def arguments(**settings):
        return updates.DistilTrainingArguments(
            str(tmp_path), use_cpu=True, report_to=[], shard_student=True, **settings
        )

    return arguments


def test_one_process_shards_nothing(tmp_path):
    """Prevents an hour of preparing a corpus before a line that says no."""
    with pytest.raises(UserError, match="several processes: start them with `torchrun"):
        updates.trainer_for("masked", tmp_path, shard_student=True)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"torch_compile": True}, "pass only one"), ({"optim": "adafactor"}, "adafactor may need")],
)
def test_arguments_that_were_not_tried_with_parts(two, settings, said):
    """Prevents an update by a part's norm in place of the whole weight's."""
    with pytest.raises(UserError, match=said):
        two(**settings)


@pytest.mark.parametrize(
    ("kind", "said"),
    [("classification", "is for language models"), ("masked", "an optimizer of your own")],
)
def test_what_cannot_be_sharded(two, monkeypatch, kind, said):
    """Prevents layers of a task that nobody looked at, and updates of weights that were whole."""
    teacher, student, data = updates.pair(kind)
    arguments = two()
    monkeypatch.setenv("WORLD_SIZE", "2")
    own = {} if kind == "classification" else {"optimizers": (AdamW(student.parameters()), None)}
    with pytest.raises(UserError, match=said):
        updates.DistilTrainer(student, arguments, teacher=teacher, train_dataset=data, **own)


if __name__ == "__main__":
    main(sys.argv[1])
