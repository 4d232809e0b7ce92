"""Defaults of fine-tuning, and the settings that identify a result. Imports no torch.

The hyper-parameters behind the paper's Tables 1 and 2 were never published. These are ours: the
middle of the grid that BERT's authors searched, the same for every task and model.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from angels_share.errors import UserError
from angels_share.imports import resolve
from angels_share.names import nearest
from angels_share.training_flags import TrainingUse, training_flags
from eval_harness.runs.onnx_files import is_read_alone
from eval_harness.runs.run import Method, Model, Settings
from eval_harness.runs.trackers import TRACKERS, trackers_in
from eval_harness.tasks.registry import Task

RECIPE = 1
"""Version of the harness's arithmetic: raise it when equal settings give different numbers."""

FINE_TUNING: Mapping[str, Any] = {
    "learning_rate": 3e-5,
    "num_train_epochs": 3.0,
    "per_device_train_batch_size": 32,
    "gradient_accumulation_steps": 1,
    "max_seq_length": 128,
    "warmup_steps": 0.1,
    "lr_scheduler_type": "linear",
    "optim": "adamw_torch_fused",
    "weight_decay": 0.01,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "max_grad_norm": 1.0,
    "bf16": False,
    "train_sampling_strategy": "group_by_length",
}

EVAL_BATCH = 64
"""Examples per evaluation batch, by default."""

# The other flags of TrainingArguments that change a result.
_ALSO = frozenset({
    "max_steps", "lr_scheduler_kwargs", "optim_args", "optim_target_modules", "tf32",
    "label_smoothing_factor", "neftune_noise_alpha", "full_determinism", "dataloader_drop_last",
    "torch_compile", "torch_compile_backend", "torch_compile_mode",
})  # fmt: skip

NEUTRAL = frozenset({
    "per_device_eval_batch_size", "dataloader_num_workers", "dataloader_pin_memory",
    "dataloader_prefetch_factor", "use_cpu", "torch_empty_cache_steps", "log_level",
    "gradient_checkpointing", "gradient_checkpointing_kwargs", "activation_checkpointing",
    "activation_checkpointing_kwargs", "report_to", "logging_steps",
})  # fmt: skip
"""Flags of TrainingArguments that are passed on but change no number."""

_ONE_EVALUATION = "dev is evaluated once, after training; --choose best does so every epoch"
_NO_CHECKPOINTS = "runs are short and not checkpointed; rerun the command to redo unfinished ones"
_ONE_PROCESS = "a run is a single process; --workers does several runs at a time"
_ONE_PUSH = "a model is pushed once, when all of its runs are done: see --push_to_hub"
_LOG = "the loss is logged every --logging_steps, or twenty times per run"
_NAMED_RUNS = "a tracker's runs are named by the results' keys; see --report_to"
_ALL_OUTPUTS = "every prediction is saved and every metric computed from it"
_FLOAT32 = "evaluation is in float32, or under autocast with --bf16"
_NO_DISTRIBUTION = "a run is a single process with one device, and has nothing to gather"
_LENGTHS = "lengths are counted from the tokens"
_REFUSED: Mapping[str, str] = {
    "output_dir": "use --results_dir",
    "seed": "use --seeds or --num_seeds",
    "data_seed": "use --seeds: a run's seed also shuffles its data",
    **dict.fromkeys(
        ("do_train", "do_eval"),
        "a run trains and is then evaluated, or is evaluated alone with --eval_only: drop it",
    ),
    "do_predict": "use --predict_test",
    **dict.fromkeys(
        ("eval_strategy", "eval_steps", "eval_delay", "eval_on_start"), _ONE_EVALUATION
    ),
    "load_best_model_at_end": "use --choose best",
    **dict.fromkeys(
        ("metric_for_best_model", "greater_is_better"), "--choose best uses the task's score"
    ),
    **dict.fromkeys(
        ("save_strategy", "save_steps", "save_total_limit", "save_only_model", "save_on_each_node",
         "ignore_data_skip", "restore_callback_states_from_checkpoint"), _NO_CHECKPOINTS,
    ),
    "resume_from_checkpoint": "rerun the same command: runs with a result are skipped",
    "push_to_hub": "a command pushes, not a run",
    **dict.fromkeys(
        ("hub_strategy", "hub_always_push", "hub_model_id", "hub_private_repo", "hub_revision"),
        _ONE_PUSH,
    ),
    "fp16": "use --bf16, or float32",
    **dict.fromkeys(("bf16_full_eval", "fp16_full_eval"), _FLOAT32),
    **dict.fromkeys(
        ("fsdp", "fsdp_config", "deepspeed", "accelerator_config", "local_rank", "ddp_backend",
         "ddp_broadcast_buffers", "ddp_bucket_cap_mb", "ddp_find_unused_parameters",
         "ddp_static_graph", "ddp_timeout", "log_level_replica", "log_on_each_node"), _ONE_PROCESS,
    ),
    **dict.fromkeys(
        ("average_tokens_across_devices", "eval_use_gather_object"), _NO_DISTRIBUTION
    ),
    **dict.fromkeys(
        ("run_name", "project", "trackio_space_id", "trackio_bucket_id",
         "trackio_static_space_id"), _NAMED_RUNS,
    ),
    **dict.fromkeys(("logging_strategy", "logging_first_step"), _LOG),
    "logging_nan_inf_filter": "a run stops at the first loss that is not finite",
    "include_num_input_tokens_seen": "tokens are not counted",
    "skip_memory_metrics": "memory is measured by `python -m eval_harness speed`",
    "disable_tqdm": "a run has no bar of its own; the sweep's is on standard error",
    "debug": "a run stops at the first gradient that is not finite, and names its step",
    **dict.fromkeys(
        ("include_for_metrics", "batch_eval_metrics", "prediction_loss_only",
         "eval_do_concat_batches", "eval_accumulation_steps"), _ALL_OUTPUTS,
    ),
    "auto_find_batch_size": "it would change the batches and so the result: set "
    "--per_device_train_batch_size, with --gradient_accumulation_steps",
    "length_column_name": _LENGTHS,
    **dict.fromkeys(
        ("remove_unused_columns", "label_names"), "the task decides which columns are read"
    ),
    "use_cache": "a task's head generates no text, so nothing is cached",
    **dict.fromkeys(
        ("use_liger_kernel", "liger_kernel_config"), "the models' own kernels are used"
    ),
    **dict.fromkeys(
        ("dataloader_persistent_workers", "dataloader_multiprocessing_context",
         "dataloader_in_order"),
        "use --dataloader_num_workers and --dataloader_prefetch_factor",
    ),
}  # fmt: skip
_ABOVE_ZERO = (
    "learning_rate", "num_train_epochs", "max_seq_length", "per_device_train_batch_size",
    "per_device_eval_batch_size", "gradient_accumulation_steps", "max_steps", "logging_steps",
    "context", "stride",
)  # fmt: skip
_NOT_BELOW_ZERO = ("warmup_steps", "weight_decay", "max_grad_norm", "label_smoothing_factor")
_SAMPLING = ("group_by_length", "random", "sequential")


def refusal(name: str) -> str | None:
    """Return why a run doesn't take a flag of TrainingArguments, or None if it does."""
    if name in FINE_TUNING or name in _ALSO or name in NEUTRAL:
        return None
    return _REFUSED.get(name, "it has no effect here, or the harness sets it itself")


def training_use(tasks: Sequence[Task], instead: Mapping[str, str] | None = None) -> TrainingUse:
    """Return what the runs of a command do with the flags of TrainingArguments.

    Args:
        tasks: the command's tasks, whose defaults can differ.
        instead: flags that none of these tasks takes, and what to use.
    """
    others = instead or {}
    return TrainingUse(
        refusal=lambda name: others.get(name) or refusal(name),
        defaults={
            **{name: _shown_default(name, tasks) for name in FINE_TUNING},
            "per_device_eval_batch_size": str(EVAL_BATCH),
            "dataloader_pin_memory": "True with CUDA",
            "use_cpu": "True without a GPU",
            "report_to": "none",
            "logging_steps": "a twentieth of a run",
        },
        help={
            "report_to": f"Trackers to watch runs with, one run of theirs per result: none, "
            f"{', '.join(TRACKERS)}",
            "logging_steps": "Steps between the logged losses, in trackers and in the result",
            "train_sampling_strategy": f"Order of the training examples: {', '.join(_SAMPLING)}",
            "label_smoothing_factor": "Share of each label's weight that goes to all classes; not "
            "with --teacher",
            "neftune_noise_alpha": "NEFTune's noise on the embeddings, typically 5 to 15; not with "
            "--teacher",
            "optim_target_modules": "Modules that GaLore or APOLLO optimizes; not with --teacher",
        },
    )


def _shown_default(name: str, tasks: Sequence[Task]) -> str:
    """Return a setting's default as a help text shows it: most tasks', then the exceptions.

    Tasks of text alone have the same, and are named by their kind.
    """
    values = {
        task.kind.name if task.kind.is_pretrained else task.title: {
            **FINE_TUNING,
            **task.fine_tuning,
        }[name]
        for task in tasks
    }
    usual = Counter(values.values()).most_common(1)[0][0]
    exceptions = [f"{title} {value}" for title, value in values.items() if value != usual]
    return "; ".join(["" if usual is False else str(usual), *exceptions])


def check_overrides(given: Mapping[str, Any], own: Collection[str] = ()) -> None:
    """Refuse flags of TrainingArguments that don't apply to a run, and impossible values.

    Args:
        given: the user's settings.
        own: names of the task's own settings.

    Raises:
        UserError: names the flag and what to use instead.
    """
    for name, value in given.items():
        if name not in own and (reason := refusal(name)):
            raise UserError(f"--{name} is not supported here: {reason}")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"--{name} {value}: must be finite")
        if name in _ABOVE_ZERO and value <= 0:
            raise UserError(f"--{name} {value}: must be above 0")
        if name in _NOT_BELOW_ZERO and value < 0:
            raise UserError(f"--{name} {value}: must be 0 or more")
    trackers_in(given)
    sampling = given.get("train_sampling_strategy", _SAMPLING[0])
    if sampling not in _SAMPLING:
        raise UserError(
            f"--train_sampling_strategy {sampling}: expected one of {', '.join(_SAMPLING)}"
            f"{nearest(sampling, _SAMPLING)}"
        )


def check_untrained(given: Mapping[str, Any], tasks: Sequence[Task]) -> None:
    """Refuse settings of training for runs that have none.

    Args:
        given: the user's settings.
        tasks: the tasks.

    Raises:
        UserError: names the flag.
    """
    used = set().union(*(_of_evaluation(task) for task in tasks)) | {"per_device_eval_batch_size"}
    used |= NEUTRAL & {"use_cpu", "dataloader_num_workers", "report_to", "log_level"}
    for name in given:
        if name not in used:
            raise UserError(f"--{name} is for training, and --eval_only has none: drop it")


def _of_evaluation(task: Task) -> set[str]:
    """Return the settings that change how a task is evaluated, without any training."""
    return {*task.kind.lengths, *task.kind.answer_settings, "bf16"}


def of_task(task: Task, given: Mapping[str, Any], others: Iterable[Task]) -> dict[str, Any]:
    """Return the user's settings without lengths that only the other tasks of a command have.

    Args:
        task: the task.
        given: the user's settings.
        others: all tasks of the command.
    """
    lengths = {name for other in others for name in other.kind.lengths} - {*task.kind.lengths}
    return {name: value for name, value in given.items() if name not in lengths}


def neutral(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the user's settings that are passed on but change no number."""
    return {name: value for name, value in given.items() if name in NEUTRAL}


def _result_settings(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the user's settings that change a result; 3 and 3.0 epochs become the same setting."""
    return {
        name: float(value) if isinstance(defaults.get(name), float) else value
        for name, value in sorted(given.items())
        if name not in NEUTRAL and not _is_default(name, value, defaults)
    }


def _is_default(name: str, value: Any, defaults: Mapping[str, Any]) -> bool:
    """Return whether a flag without a default of ours has TrainingArguments' own default."""
    return name not in defaults and repr(value) == training_flags()[name].default


def settings_of(
    task: Task,
    given: Mapping[str, Any],
    *,
    content: str,
    limit: int | None,
    choose: str = "last",
    method: Method | None = None,
    inputs: Mapping[str, str] | None = None,
    eval_only: bool = False,
    model: Model | None = None,
) -> Settings:
    """Return every setting that changes the result of a run.

    Args:
        task: the task, whose defaults the user's settings override.
        given: the user's settings: flags of TrainingArguments, and the task's own.
        content: the content hash of the data.
        limit: the maximum number of examples per split.
        choose: the epoch whose predictions count: "last" or "best".
        method: the training method; None for plain fine-tuning.
        inputs: inputs of the method that differ between tasks, such as the teacher's run.
        eval_only: whether the model is evaluated as it is, so that no setting of training counts.
        model: the model, which some kinds of tasks have settings of.

    Raises:
        UserError: a setting that this model can't have.
    """
    defaults = {**FINE_TUNING, **task.fine_tuning}
    chosen = _result_settings(given, defaults)
    values = {**defaults, **chosen}
    if task.kind.of_model:
        assert model is not None
        values |= resolve(task.kind.of_model)(model, values, given)
        values = {name: value for name, value in values.items() if name != "max_seq_length"}
    if eval_only:
        values = {name: values[name] for name in values if name in _of_evaluation(task)}
    method_record = method and {
        "name": method.name,
        "factory": method.factory,
        "options": dict(method.options),
    }
    row_settings = {
        "recipe": RECIPE,
        # A row spans tasks: a value is no override only if the task and all others default to it.
        "overrides": {
            name: value
            for name, value in chosen.items()
            if value != defaults.get(name) or value != FINE_TUNING.get(name, value)
        },
        "limit": limit,
        "dtype": "bfloat16" if values["bf16"] else "float32",
        "choose": choose,
        "method": method_record,
        **({"eval_only": True} if eval_only else {}),
        **({"one_by_one": True} if model is not None and is_read_alone(model) else {}),
    }
    task_settings = {
        "version": task.version,
        "labels": list(task.labels),
        "measures": [*task.primary, *task.also],
        "columns": list(task.columns),
        "data": content,
        "values": values,
        "inputs": dict(inputs or {}),
    }
    return Settings(row_settings, task_settings)
