"""DistilTrainingArguments: every value that is ours has its type, and none is silently ignored."""

import dataclasses

import pytest
import transformers

from angels_share.errors import UserError
from distil_trainer import DistilTrainingArguments
from distil_trainer.training.args import _CHECKS


def arguments(tmp_path, **settings):
    return DistilTrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True, **settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tokens_per_batch": "96"}, "tokens_per_batch: '96' is not an integer"),
        ({"tokens_per_batch": 96.5}, "tokens_per_batch: 96.5 is not an integer"),
        ({"tokens_per_batch": 0}, "tokens_per_batch: must be above 0"),
        (
            {"mask_scope": "exampel"},
            "mask_scope: 'exampel' is not one of example, batch, token; di",
        ),
        ({"mask_scope": None}, "mask_scope: None is not one of"),
        ({"mlm_smoothing": "x"}, "mlm_smoothing: 'x' is not a number"),
        ({"mlm_smoothing": -0.5}, "mlm_smoothing: must be 0 or more"),
        ({"mlm_probability": True}, "mlm_probability: True is not a number"),
        ({"mlm_probability": 1.0}, "mlm_probability: must be below 1"),
        ({"temperature": None}, "temperature: None is not a number"),
        ({"alpha_task": float("nan")}, "alpha_task: must be finite"),
        ({"restrict_ce_to_mask": "no"}, "restrict_ce_to_mask: 'no' is neither True nor False"),
        ({"kd_over_all_positions": "all"}, "kd_over_all_positions: 'all' is neither True nor"),
        ({"allow_inexact_resume": 1}, "allow_inexact_resume: 1 is neither True nor False"),
    ],
)
def test_values_of_another_type(settings, said, tmp_path):
    """Prevents text from reaching a step, and a mistyped word from meaning the default."""
    with pytest.raises(UserError) as error:
        arguments(tmp_path, **settings)
    assert str(error.value).startswith(said)


def test_every_argument_of_ours_is_checked():
    """Prevents a new argument from being forgotten."""
    ours, theirs = (
        {each.name for each in dataclasses.fields(kind)}
        for kind in (DistilTrainingArguments, transformers.TrainingArguments)
    )
    assert ours - theirs == set(_CHECKS) - {"learning_rate"}


def test_right_values_pass(tmp_path):
    """Prevents a whole number where a number is wanted, or an open choice, from being refused."""
    made = arguments(
        tmp_path, alpha_ce=1, alpha_mse=None, temperature=3, tokens_per_batch=96, mask_scope="token"
    )
    assert (made.alpha_ce, made.temperature, made.tokens_per_batch) == (1, 3, 96)


@pytest.mark.parametrize(
    "name", ["ignore_data_skip", "save_only_model", "bf16_full_eval", "fp16_full_eval"]
)
def test_what_would_break_a_promise_is_refused(name, tmp_path):
    """Prevents a run that can't be resumed exactly, or metrics of another precision, unnoticed."""
    with pytest.raises(UserError, match=f"--{name} is not supported here: "):
        arguments(tmp_path, **{name: True})


def test_a_preset_that_is_not_there(tmp_path):
    """Prevents a KeyError for a letter too few."""
    with pytest.raises(
        UserError, match="unknown preset 'papr'; presets: paper; did you mean 'paper'"
    ):
        DistilTrainingArguments.preset("papr", output_dir=str(tmp_path))
