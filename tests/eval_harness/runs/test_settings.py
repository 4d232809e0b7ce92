from dataclasses import replace

import pytest
from transformers_versions import NEWER

from angels_share.errors import UserError
from angels_share.training_flags import training_flags
from eval_harness.runs import settings as settings_module
from eval_harness.runs.run import Method
from eval_harness.runs.settings import FINE_TUNING, check_overrides, settings_of
from eval_harness.tasks.lookup import task_named

RTE, IMDB = task_named("rte"), task_named("imdb")


def settings(given=None, task=RTE, **rest):
    return settings_of(task, given or {}, **{"content": "c0ffee", "limit": None} | rest)


def method(**options):
    return Method("distil", "a.module:function", options)


@pytest.mark.parametrize(
    "other",
    [
        settings({"learning_rate": 1e-4}),
        settings({"bf16": True}),
        settings({"neftune_noise_alpha": 5.0}),
        settings(limit=100),
        settings(choose="best"),
        settings(content="other data"),
        settings(method=method(temperature=2.0)),
        settings(method=method(temperature=3.0)),
        settings(method=method(temperature=2.0), inputs={"teacher": "a teacher's run"}),
    ],
)
def test_what_changes_the_number_changes_the_key(other):
    """Prevents a --limit run, another rate, a (D) or other data from passing for one another."""
    everything = [settings(), settings(method=method(temperature=2.0)), settings(limit=10)]
    same = [each for each in everything if each.hash == other.hash]
    assert all(each == other for each in same)
    assert settings().hash != other.hash


@pytest.mark.parametrize(
    "given",
    [
        {"learning_rate": FINE_TUNING["learning_rate"]},
        {"num_train_epochs": 3},
        {"dataloader_num_workers": 2},
        {"per_device_eval_batch_size": 1},
        {"label_smoothing_factor": 0.0},
    ],
)
def test_what_changes_nothing_keeps_the_key(given):
    """Prevents the same run from being done twice because a default was spelt out."""
    assert settings(given).hash == settings().hash


def test_a_row_is_shared_by_all_tasks():
    """Prevents a table with a row for each task: only what the user set tells rows apart."""
    cola = task_named("cola")
    assert settings().row_hash == settings(task=cola, content="other").row_hash
    assert settings({"learning_rate": 1e-4}).row_hash != settings().row_hash


def test_a_tasks_own_defaults_yield_to_the_user():
    """Prevents IMDb from being cut to 128 tokens by default, or not when 128 were asked for."""
    assert settings(task=IMDB).task["values"]["max_seq_length"] == 512
    asked = settings({"max_seq_length": 128}, task=IMDB)
    assert asked.task["values"]["max_seq_length"] == 128
    assert asked.hash != settings(task=IMDB).hash


def test_what_a_task_means_is_in_the_key():
    """Prevents a custom task's old score from standing under the measure that it has now."""
    stars = replace(RTE, name="stars")
    for other in (
        replace(stars, primary=("f1",)),
        replace(stars, labels=RTE.labels[::-1]),
        replace(stars, columns=RTE.columns[::-1]),
        replace(stars, version=2),
    ):
        assert settings(task=other).hash != settings(task=stars).hash


def test_methods_folders_are_no_part_of_the_key():
    """Prevents another machine's path to the same teacher from making another key."""
    here, there = (Method("distil", "m:f", {"a": 1}, {"teacher": path}) for path in ("/a", "/b"))
    assert settings(method=here) == settings(method=there)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("seed", 3, "--seeds"),
        ("output_dir", "x", "--results_dir"),
        ("eval_strategy", "epoch", "--choose best"),
        ("fp16", True, "bf16"),
        ("learning_rate", 0.0, "above 0"),
        ("num_train_epochs", -1, "above 0"),
        ("max_steps", 0, "above 0"),
        ("warmup_steps", -1, "0 or more"),
        ("learning_rate", float("nan"), "finite"),
        ("train_sampling_strategy", "group_by_lenght", "did you mean 'group_by_length'"),
        ("dataloader_persistent_workers", True, "not supported here"),
        ("run_name", "a", "not supported here"),
    ],
)
def test_flags_that_are_not_for_here_name_the_way(name, value, said):
    """Prevents a flag of TrainingArguments from being ignored in silence."""
    with pytest.raises(UserError, match=said):
        check_overrides({name: value})


def test_every_default_and_refusal_is_a_flag_there_is():
    """Prevents a default or a refusal that a new version of transformers made meaningless."""
    known = {*training_flags(), "max_seq_length"}
    assert set(FINE_TUNING) <= known
    assert known >= settings_module.NEUTRAL - NEWER
    assert known >= settings_module._ALSO
    assert set(settings_module._REFUSED) <= known
    overlap = settings_module.NEUTRAL & {*FINE_TUNING, *settings_module._ALSO}
    assert not overlap
    assert not settings_module._REFUSED.keys() & settings_module.NEUTRAL


KEYS = {
    "cola": "aabb9fd1", "mnli": "2174a791", "mrpc": "dcc1ee23", "qnli": "f7201d55",
    "qqp": "ef653eff", "rte": "85f002fa", "sst2": "95ea51f4", "stsb": "4c507523",
    "wnli": "d51d88e9", "imdb": "7d24b2ba", "squad": "bc5da6c3", "squad_v2": "14c4cd23",
}  # fmt: skip
"""The hash of each task's default settings, on data whose content is `x`."""


@pytest.mark.parametrize("name", KEYS)
def test_saved_results_keep_their_keys(name):
    """Prevents a field of tasks that was added from making everybody's results those of others."""
    assert settings_of(task_named(name), {}, content="x", limit=None).hash == KEYS[name]
