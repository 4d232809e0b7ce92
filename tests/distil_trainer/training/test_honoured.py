"""Every argument and field of the Trainer: honoured, refused, or named as of no effect."""

import dataclasses
import inspect
import logging
import sys

import datasets
import pytest
import torch
import transformers
import updates
from transformers_versions import NEWER

from angels_share.errors import UserError
from distil_trainer import DistilTrainer, DistilTrainingArguments
from distil_trainer.training import honoured

THEIRS = [field.name for field in dataclasses.fields(transformers.TrainingArguments)]
MODES = ("masked", "causal", "task")

# A value of each refused field that isn't its default.
REFUSED_VALUES = {
    "fp16": True,
    "fsdp": "full_shard",
    "fsdp_config": {"min_num_params": 1},
    "deepspeed": {"zero_optimization": {"stage": 1}},
    "parallelism_config": {"tp_size": 2},
    "use_liger_kernel": True,
    "liger_kernel_config": {"rope": True},
    "label_smoothing_factor": 0.1,
    "auto_find_batch_size": True,
    "neftune_noise_alpha": 5.0,
    "ignore_data_skip": True,
    "save_only_model": True,
    "bf16_full_eval": True,
    "fp16_full_eval": True,
    "optim": "galore_adamw",
    "optim_target_modules": ["attn"],
    "average_tokens_across_devices": False,
    "enable_jit_checkpoint": True,
    "remove_unused_columns": True,
    "label_names": ["targets"],
    "dataloader_in_order": False,
    "accelerator_config": {"use_seedable_sampler": False},
    "debug": "underflow_overflow",
    "push_to_hub": True,
    "hub_token": "hf_secret",
}
REFUSED_FOR_TEXT_VALUES = {
    "dataloader_drop_last": True,
    "train_sampling_strategy": "group_by_length",
    "length_column_name": "tokens",
    "dataloader_multiprocessing_context": "spawn",
    "accelerator_config": {"even_batches": False},
    "include_for_metrics": ["inputs"],
    "batch_eval_metrics": True,
}
NO_EFFECT_VALUES = {
    "logging_nan_inf_filter": True,
    "do_train": True,
    "do_predict": True,
    "resume_from_checkpoint": "checkpoint-1",
    "local_rank": 0,
    "hub_strategy": "end",
    "hub_always_push": True,
}
NO_EFFECT_ON_TEXT_VALUES = {
    "prediction_loss_only": True,
    "eval_do_concat_batches": False,
    "eval_use_gather_object": True,
    "eval_accumulation_steps": 2,
}


def arguments(tmp_path, **settings):
    return DistilTrainingArguments(
        **{"output_dir": str(tmp_path), "report_to": [], "use_cpu": True} | settings
    )


@pytest.mark.parametrize("mode", MODES)
def test_every_field_of_the_installed_version_is_on_the_list(mode):
    """Prevents a field of a newer transformers from being ignored without anyone deciding it."""
    assert [name for name in THEIRS if honoured.treatment(name, mode) is None] == []


def test_the_list_names_nothing_that_is_gone():
    """Prevents a list that goes on about fields that a newer transformers no longer has."""
    listed = {*honoured.HONOURED, *honoured.REFUSED, *honoured.NO_EFFECT}
    listed |= {*honoured.REFUSED_FOR_TEXT, *honoured.NO_EFFECT_ON_TEXT}
    assert listed - set(THEIRS) in (set(), NEWER)


def test_a_field_has_one_treatment():
    """Prevents a field that is honoured in one table and refused in another."""
    everywhere = [honoured.HONOURED, honoured.REFUSED.keys() - honoured._PARTLY, honoured.NO_EFFECT]
    assert sum(map(len, everywhere)) == len(set().union(*everywhere))
    on_text = [honoured.REFUSED_FOR_TEXT.keys(), honoured.NO_EFFECT_ON_TEXT.keys()]
    assert not on_text[0] & on_text[1]
    assert set().union(*on_text) <= honoured.HONOURED, "a student with a task head honours them"


@pytest.mark.parametrize("mode", MODES)
def test_every_argument_of_the_installed_trainer_is_on_the_list(mode):
    """Prevents an argument of a newer Trainer from being ignored without anyone deciding it."""
    names = list(inspect.signature(transformers.Trainer.__init__).parameters)[1:]
    assert [name for name in names if honoured.argument_treatment(name, mode) is None] == []
    listed = {*honoured.ARGUMENTS_HONOURED, *honoured.ARGUMENTS_REFUSED}
    assert listed | set(honoured.ARGUMENTS_REFUSED_FOR_TEXT) == set(names)


def test_every_refusal_and_every_lack_of_effect_is_tried():
    """Prevents an entry of the list that nothing holds to what the Trainer does."""
    assert set(REFUSED_VALUES) == set(honoured.REFUSED)
    assert set(REFUSED_FOR_TEXT_VALUES) == set(honoured.REFUSED_FOR_TEXT)
    assert set(NO_EFFECT_VALUES) == set(honoured.NO_EFFECT)
    assert set(NO_EFFECT_ON_TEXT_VALUES) == set(honoured.NO_EFFECT_ON_TEXT)


@pytest.mark.parametrize("name", REFUSED_VALUES)
def test_a_refused_field(name, tmp_path):
    """Prevents a setting that the Trainer would take and then not do."""
    with pytest.raises(UserError, match=f"^--{name} is not supported here: "):
        arguments(tmp_path, **{name: REFUSED_VALUES[name]})


@pytest.mark.parametrize("name", REFUSED_FOR_TEXT_VALUES)
def test_a_field_that_a_language_model_refuses(name, tmp_path):
    """Prevents a setting of a loader or a loop that a language model doesn't use."""
    settings = {name: REFUSED_FOR_TEXT_VALUES[name]}
    for kind in ("masked", "causal"):
        with pytest.raises(UserError, match=f"^--{name} would be ignored with a language model: "):
            updates.trainer_for(kind, tmp_path, **settings)


@pytest.mark.parametrize("name", [*NO_EFFECT_VALUES, *NO_EFFECT_ON_TEXT_VALUES])
def test_a_field_without_effect_is_named(name, tmp_path, caplog):
    """Prevents a user who set a field from believing that it did something."""
    value = (NO_EFFECT_VALUES | NO_EFFECT_ON_TEXT_VALUES)[name]
    with caplog.at_level(logging.WARNING):
        updates.trainer_for("masked", tmp_path)
        assert "no effect" not in caplog.text
        updates.trainer_for("masked", tmp_path, **{name: value})
    assert caplog.text.count(f"--{name} has no effect here: ") == 1
    assert "hf_secret" not in caplog.text


def test_fields_without_effect_change_nothing(tmp_path):
    """Prevents an entry of the list that is wrong: another number with such a field."""
    plain = metrics_of(updates.trainer_for("masked", tmp_path))
    without = {**NO_EFFECT_ON_TEXT_VALUES, "logging_nan_inf_filter": True}
    assert metrics_of(updates.trainer_for("masked", tmp_path, **without)) == plain


def metrics_of(trainer):
    trainer.train()
    metrics = trainer.evaluate(trainer.train_dataset)
    return {name: value for name, value in metrics.items() if name.startswith("eval_loss")}


@pytest.mark.parametrize("name", [*REFUSED_FOR_TEXT_VALUES, *NO_EFFECT_ON_TEXT_VALUES])
def test_a_task_honours_what_text_does_not(name, tmp_path, caplog):
    """Prevents a field from being refused, or from failing, where the Trainer's own loops run."""
    value = (REFUSED_FOR_TEXT_VALUES | NO_EFFECT_ON_TEXT_VALUES)[name]
    workers = {"dataloader_num_workers": 1} if "multiprocessing" in name else {}
    trainer = updates.trainer_for("classification", tmp_path, **{name: value}, **workers)
    trainer.train()
    trainer.evaluate(trainer.train_dataset)
    assert "has no effect" not in caplog.text


@pytest.mark.parametrize(
    ("argument", "kinds"),
    [
        ("model_init", ("masked", "classification")),
        ("compute_loss_func", ("masked", "causal", "classification")),
        ("compute_metrics", ("masked", "causal")),
        ("preprocess_logits_for_metrics", ("masked", "causal")),
    ],
)
def test_a_refused_argument(argument, kinds, tmp_path):
    """Prevents a function of the user's that is never called."""
    for kind in kinds:
        teacher, student, data = updates.pair(kind)
        given = {argument: lambda *_: None}
        with pytest.raises(UserError, match=f"^{argument} (is not supported|would be ignored)"):
            DistilTrainer(
                student, arguments(tmp_path), teacher=teacher, train_dataset=data, **given
            )


def test_an_argument_of_a_newer_version_passes_with_one_warning(monkeypatch, caplog):
    """Prevents a newer Trainer's argument from being trusted blindly."""
    monkeypatch.setattr(honoured, "ARGUMENTS_HONOURED", honoured.ARGUMENTS_HONOURED - {"callbacks"})
    honoured.check_arguments("task", {"callbacks": None})
    assert "newer" not in caplog.text
    honoured.check_arguments("task", {"callbacks": []})
    assert caplog.text.count("callbacks is newer than what was tried here") == 1


OURS_OF_NO_EFFECT = {
    "mlm_probability": 0.3,
    "mlm_smoothing": 0.1,
    "mask_scope": "token",
    "restrict_ce_to_mask": True,
}
KIND = {"causal": "causal", "task": "classification"}


@pytest.mark.parametrize(
    ("mode", "name"),
    [(mode, name) for mode in KIND for name in honoured.OURS_OF_NO_EFFECT[mode]],
)
def test_a_field_of_ours_without_effect_is_named(mode, name, tmp_path, caplog):
    """Prevents masks that somebody asked for from not being made, without a word."""
    plain = updates.trainer_for(KIND[mode], tmp_path / "plain")
    assert "has no effect" not in caplog.text
    named = {name: OURS_OF_NO_EFFECT[name]}
    given = updates.trainer_for(KIND[mode], tmp_path / "given", **named)
    assert caplog.text.count(f"--{name} has no effect here") == 1
    assert plain.train().training_loss == given.train().training_loss


def test_a_batch_size_in_tokens_is_no_tasks(tmp_path):
    """Prevents batches of another size than was asked for."""
    with pytest.raises(UserError, match="--tokens_per_batch is for language models"):
        updates.trainer_for("classification", tmp_path, tokens_per_batch=30)


def test_a_task_calls_the_metrics_of_the_user(tmp_path):
    """Prevents metrics, or logits prepared for them, from being ignored with a task's head."""
    seen = []
    teacher, student, data = updates.pair("classification")
    trainer = DistilTrainer(
        student,
        arguments(tmp_path),
        teacher=teacher,
        eval_dataset=data,
        data_collator=transformers.DataCollatorWithPadding(updates.tiny.wordpiece()),
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1),
        compute_metrics=lambda made: seen.append(made.predictions.shape) or {"mine": 7.0},
    )
    assert trainer.evaluate()["eval_mine"] == 7.0
    assert seen == [(8,)]


def test_a_field_of_a_newer_version_passes_with_one_warning(tmp_path, monkeypatch, caplog):
    """Prevents a newer transformers from being unusable, or from being trusted blindly."""
    monkeypatch.setattr(honoured, "HONOURED", honoured.HONOURED - {"ddp_timeout"})
    with caplog.at_level(logging.WARNING):
        arguments(tmp_path)
        assert "newer" not in caplog.text
        arguments(tmp_path, ddp_timeout=60)
    assert caplog.text.count("--ddp_timeout is newer than what was tried here") == 1


COMMON = {
    "lr_scheduler_type": "cosine",
    "warmup_steps": 1,
    "optim": "adafactor",
    "weight_decay": 0.1,
    "gradient_accumulation_steps": 2,
    "max_grad_norm": 0.5,
    "gradient_checkpointing": True,
    "torch_empty_cache_steps": 1,
    "logging_steps": 1,
    "logging_first_step": True,
    "include_num_input_tokens_seen": "non_padding",
    "eval_strategy": "steps",
    "eval_steps": 1,
    "eval_on_start": True,
    "save_strategy": "steps",
    "save_steps": 1,
    "save_total_limit": 1,
    "load_best_model_at_end": True,
    "metric_for_best_model": "loss",
    "greater_is_better": False,
    "restore_callback_states_from_checkpoint": True,
    "data_seed": 3,
    "skip_memory_metrics": False,
    "per_device_train_batch_size": 2,
    "per_device_eval_batch_size": 3,
    "max_steps": 2,
}


@pytest.mark.parametrize("kind", ["masked", "causal", "classification"])
def test_fields_that_reach_into_what_is_overridden(kind, tmp_path):
    """Prevents a loop of ours that forgets what the Trainer's would have done at its steps."""
    _, _, data = updates.pair(kind)
    trainer = updates.trainer_for(kind, tmp_path, eval_data=data, **COMMON)
    result = trainer.train()
    log = trainer.state.log_history
    assert [entry["step"] for entry in log if "eval_loss" in entry] == [0, 1, 2]
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2]
    seen = [entry["num_input_tokens_seen"] for entry in log if "num_input_tokens_seen" in entry]
    shown = sum(entry.get("label_share", 0) > 0 for entry in log)
    assert seen[-1] == trainer.state.num_input_tokens_seen > 0
    assert shown in (0, 2)
    assert type(trainer.optimizer).__name__ in ("Adafactor", "AcceleratedOptimizer")
    assert trainer.state.best_model_checkpoint
    assert "init_mem_cpu_alloc_delta" in result.metrics


LOOK_AT_ALL = {
    "__post_init__", "_validate_args", "to_dict", "to_sanitized_dict", "_check_values",
    "_is_set", "check_fields", "check_fields_for", "compare_trainer_and_checkpoint_args",
    "settings_that_decide", "<dictcomp>", "<genexpr>",
}  # fmt: skip
"""Functions that go through many fields: one that reads a field does nothing with it."""

USED_EARLIER = {
    "hub_model_id": "push_to_hub() reads it",
    "hub_private_repo": "push_to_hub() reads it",
    "hub_revision": "push_to_hub() reads it",
    "do_eval": "scripts ask for it; evaluation follows eval_strategy",
    "gradient_checkpointing": "becomes activation_checkpointing",
    "gradient_checkpointing_kwargs": "becomes activation_checkpointing_kwargs",
    "tf32": "sets torch's own switch",
    "ddp_timeout": "goes to the process group",
    "bf16": "becomes the accelerator's mixed precision",
    "torch_compile": "becomes torch_compile_backend",
}
"""Fields that TrainingArguments itself uses up, before there is a Trainer, or that others read."""
USED_LATER = (
    set() if set(THEIRS) >= NEWER else {"gradient_checkpointing", "gradient_checkpointing_kwargs"}
)
USED_BY_TRACKERS = {
    "project", "run_name", "trackio_bucket_id", "trackio_space_id", "trackio_static_space_id"
}  # fmt: skip


@pytest.mark.parametrize("kind", ["masked", "causal", "classification"])
def test_every_honoured_field_is_read_by_what_runs(kind, tmp_path, monkeypatch):
    """Prevents a loader or a loop of ours from forgetting a field that the Trainer would read."""
    reads = set()

    def read(self, name):
        caller = sys._getframe(1).f_code.co_name
        if caller not in LOOK_AT_ALL:
            reads.add(name)
        return super(DistilTrainingArguments, self).__getattribute__(name)

    monkeypatch.setattr(DistilTrainingArguments, "__getattribute__", read, raising=False)
    _, _, data = updates.pair(kind)
    mode = "task" if kind == "classification" else kind
    settings = COMMON | {"max_steps": -1, "num_train_epochs": 1}
    if mode == "task":
        settings |= {"train_sampling_strategy": "group_by_length"}
        data = datasets.Dataset.from_list(list(data))
    trainer = updates.trainer_for(kind, tmp_path, data=data, eval_data=data, **settings)
    trainer.train()
    trainer.predict(data)
    trainer.train(resume_from_checkpoint=True)
    expected = {name for name in THEIRS if honoured.treatment(name, mode) == "honoured"}
    assert expected - reads == {*USED_EARLIER, *USED_BY_TRACKERS} - USED_LATER


def test_optimizers_of_the_user(tmp_path):
    """Prevents an optimizer that was handed in from being replaced."""
    teacher, student, data = updates.pair("classification")
    mine = torch.optim.SGD(student.parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.LambdaLR(mine, lambda _: 1.0)
    trainer = DistilTrainer(
        student,
        arguments(tmp_path, max_steps=1, save_strategy="no"),
        teacher=teacher,
        train_dataset=data,
        data_collator=transformers.DataCollatorWithPadding(updates.tiny.wordpiece()),
        optimizers=(mine, schedule),
    )
    before = student.classifier.bias.detach().clone()
    trainer.train()
    assert mine.param_groups[0]["lr"] == 0.5
    assert not torch.equal(student.classifier.bias, before)
