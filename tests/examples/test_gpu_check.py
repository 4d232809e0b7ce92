"""`python -m benchmarks.gpu --check`, rehearsed on the CPU: time on a GPU is rare."""

import sys

import pytest
import torch

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import check as gpu
from distil_trainer.objectives import vocab_head

SMALL = gpu.SIZES["small"]
NOT_ON_A_GPU_MACHINE = ("pyarrow", "datasets", "evaluate", "pandas", "sklearn", "scipy", "tabulate")


def failed(rows):
    return {row.name for row in rows if not row.ok}


def test_losses_and_head_agree_with_float64():
    """Prevents a tolerance that correct code misses."""
    rows = [*gpu.loss_terms(SMALL, "cpu"), *gpu.vocabulary_head(SMALL, "cpu")]
    assert len(rows) == 26
    assert not failed(rows)


def test_a_wrong_gradient_is_seen(monkeypatch):
    """Prevents a check that can't fail: here the divergence's gradient is wrong by a thousandth."""
    right = vocab_head._divergence

    def wrong(*arguments):
        value, gradient = right(*arguments)
        return value, gradient * 1.001

    monkeypatch.setitem(vocab_head._DIVERGENCES, "kl", wrong)
    assert failed(gpu.vocabulary_head(SMALL, "cpu")) == {"head, float32: gradient"}


def test_a_loss_that_is_a_mean_of_means_is_seen(monkeypatch):
    """Prevents a check that can't fail: here each micro-batch is divided by its own count."""
    from distil_trainer import DistilTrainer

    right = DistilTrainer.compute_loss

    def wrong(self, model, inputs, *rest, num_items_in_batch, **named):
        counts = self.objective.counts(inputs) * self.args.gradient_accumulation_steps
        return right(self, model, inputs, *rest, num_items_in_batch=counts, **named)

    monkeypatch.setattr(DistilTrainer, "compute_loss", wrong)
    names = failed(gpu.updates("masked", SMALL, "cpu"))
    assert names == {"masked, 4x2 = 8x1: value", "masked, 4x2 = 8x1: gradient"}


def test_a_resumed_run_that_differs_is_seen(monkeypatch):
    """Prevents a check that can't fail: here the resumed run has another dropout."""
    from distil_trainer import DistilTrainer

    monkeypatch.setattr(DistilTrainer, "_load_rng_state", lambda *_: None)
    assert failed(gpu.resuming(SMALL, "cpu")) == {"a resumed run"}


def test_a_check_that_breaks_is_a_row(monkeypatch, capsys):
    """Prevents one error from hiding what the other checks would have shown."""
    monkeypatch.setattr(gpu, "KINDS", ())
    monkeypatch.setattr(gpu, "resuming", lambda *_: iter(()))
    monkeypatch.setattr(gpu, "vocabulary_head", lambda *_: 1 / 0)
    assert gpu.report("small", "cpu") == 1
    shown = capsys.readouterr().out
    assert "FAILED ZeroDivisionError: division by zero" in shown
    assert "20 of 21 ok" in shown


def test_a_difference_that_is_no_number_fails():
    """Prevents a NaN from passing, as it is not above any tolerance."""
    assert not gpu.Row("NaN", float("nan"), 1.0).ok
    sound, damaged = torch.zeros(2), torch.tensor([float("nan"), 1.0])
    for ours in ([sound, damaged], [damaged, sound]):
        assert not gpu.Row("NaN", gpu._largest(ours, [sound, sound]), 1.0).ok


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    """Prevents a check on the CPU from passing for one on a GPU."""
    monkeypatch.setattr(sys, "argv", ["gpu", "--check"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    assert "torch sees no GPU here; --device cpu rehearses" in capsys.readouterr().err


@pytest.mark.slow
def test_the_rehearsal_passes_with_what_is_on_a_gpu_machine(run_script):
    """Prevents a check that first breaks on the machine that it is for, which has few packages."""
    code = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({NOT_ON_A_GPU_MACHINE}));"
        "sys.argv[1:] = ['--check', '--device', 'cpu'];"
        "runpy.run_module('benchmarks.gpu', run_name='__main__')"
    )
    ended = run_script("-c", code, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-3000:]
    assert "64 of 64 ok" in ended.stdout
