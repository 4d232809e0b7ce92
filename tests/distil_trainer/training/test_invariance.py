"""Settings that must give one result: 8x1 = 4x2 = 2x4 = two processes, loss and gradient."""

import subprocess
import sys

import pytest
import safetensors.torch
import torch
import updates

from distil_trainer.training.trainer import DistilTrainer


def assert_same(ours, theirs):
    (loss, gradient), (other_loss, other_gradient) = ours, theirs
    assert loss == pytest.approx(other_loss, rel=1e-5)
    assert gradient.keys() == other_gradient.keys()
    for name, value in gradient.items():
        torch.testing.assert_close(value, other_gradient[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("kind", updates.KINDS)
def test_accumulation_changes_nothing(kind, tmp_path):
    """Fault 9: prevents a loss that is the mean of means, or scaled by the accumulation steps."""
    whole = updates.one_update(kind, tmp_path, per_device_train_batch_size=8)[:2]
    assert max(value.abs().max() for value in whole[1].values()) > 1e-3
    for size, steps in ((4, 2), (2, 4)):
        split = updates.one_update(
            kind,
            tmp_path,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
        )[:2]
        assert_same(split, whole)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """One update of every kind on two processes that talk over the loopback."""
    folder = tmp_path_factory.mktemp("two")
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2",
        "--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0", updates.__file__, str(folder),
    ]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return folder


@pytest.mark.parametrize("kind", updates.KINDS)
def test_two_processes_change_nothing(kind, two_processes, tmp_path):
    """Fault 9: prevents a loss outside of what DDP wraps, whose gradient nobody reduces.

    And an evaluation of one process's share only.
    """
    first, second = (
        safetensors.torch.load_file(two_processes / f"{kind}-{rank}.safetensors") for rank in (0, 1)
    )
    for name in first:
        assert torch.equal(first[name], second[name]), f"{name} differs between the processes"
    *whole, trainer = updates.one_update(kind, tmp_path, per_device_train_batch_size=8)
    if "eval_loss" in first:
        held_out = trainer.evaluate(updates.pair(kind)[2])["eval_loss"]
        assert float(first["eval_loss"]) == pytest.approx(held_out, rel=1e-6)
    gradient = {
        name.removeprefix("gradient."): value
        for name, value in first.items()
        if name.startswith("gradient.")
    }
    gradient = {name.removeprefix("module."): value for name, value in gradient.items()}
    assert_same((float(first["loss"]), gradient), whole)


@pytest.mark.parametrize("kind", ["masked", "causal", "classification"])
def test_a_trainer_that_divides_again_changes_nothing(kind, monkeypatch, tmp_path):
    """Prevents a quarter of the gradient with transformers that knows no `loss_is_scaled_for_ga`.

    Such a version divides whatever a trainer says of its loss; a newer one does so if told to.
    """
    whole = updates.one_update(kind, tmp_path, per_device_train_batch_size=8)[:2]
    assert DistilTrainer.loss_is_scaled_for_ga is True
    monkeypatch.setattr(DistilTrainer, "loss_is_scaled_for_ga", False)
    size = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    assert_same(updates.one_update(kind, tmp_path, **size)[:2], whole)
