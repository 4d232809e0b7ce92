"""Who executes the runs of a sweep: this machine, a Ray cluster, or jobs of Slurm."""

from pathlib import Path
from typing import Any

from angels_share.errors import UserError
from angels_share.flags import Flag, Options, above_zero
from eval_harness.sweep.executor import Executor
from eval_harness.sweep.local_workers import LocalWorkers

_WORK = "eval_harness.training.runner:run_task"
_RAY, _SLURM = "ray", "slurm"


def _is_setting(text: str) -> str | None:
    name, equals, _ = text.partition("=")
    return None if name and equals else "expected NAME=VALUE, as in qos=low"


EXECUTORS = (
    Flag(
        "executor",
        "who executes the runs: processes of this machine, tasks of a Ray cluster, or Slurm jobs",
        default="local",
        choices=("local", _RAY, _SLURM),
    ),
    Flag(
        "ray_address",
        "a running Ray cluster's address, or auto for the one that this machine is part of "
        "[RAY_ADDRESS, else a cluster of this machine alone, for this command]",
    ),
    Flag("slurm_time", "minutes that a Slurm job may take", int, check=above_zero),
    Flag("slurm_partition", "partition of the Slurm jobs [Slurm's default]"),
    Flag("slurm_account", "account that the Slurm jobs are charged to"),
    Flag(
        "slurm_gpus_per_node", "GPUs of a Slurm job; it does one run on each", int,
        check=above_zero,
    ),
    Flag("slurm_gres", "resources of a Slurm job by name, as in gpu:a100:1"),
    Flag(
        "slurm_cpus_per_task",
        "cores of a Slurm job [--threads for each of its GPUs, else Slurm's default]", int,
        check=above_zero,
    ),
    Flag("slurm_mem", "memory of a Slurm job, as in 32G"),
    Flag("slurm_constraint", "features that the nodes of Slurm jobs must have"),
    Flag(
        "slurm_additional_parameters",
        "further flags of sbatch, as in qos=low exclude=node7",
        many=True,
        metavar="NAME=VALUE",
        check=_is_setting,
    ),
    Flag(
        "slurm_setup",
        "lines of shell at the beginning of a Slurm job, as in 'module load cuda'",
        many=True,
        metavar="LINE",
    ),
)  # fmt: skip


def check_executor(options: Options) -> None:
    """Refuse flags of an engine that isn't used, and Slurm without a time limit.

    Raises:
        UserError: names the flag.
    """
    for engine in (_RAY, _SLURM):
        of_engine = [name for name in options.given if name.startswith(f"{engine}_")]
        if of_engine and options.executor != engine:
            raise UserError(f"--{min(of_engine)} needs --executor {engine}")
    if options.executor != _SLURM:
        return
    if options.slurm_time is None:
        raise UserError("--executor slurm needs --slurm_time: the minutes that a job may take")
    if options.training.get("use_cpu") and _gpus(options):
        flag = "gpus_per_node" if options.slurm_gpus_per_node else "gres"
        raise UserError(f"--use_cpu leaves GPUs alone: drop --slurm_{flag}")
    names = [_name_of(each) for each in options.slurm_additional_parameters or ()]
    for name in names:
        if name in _OURS or f"slurm_{name}" in {flag.name for flag in EXECUTORS}:
            hint = f"use --slurm_{name}" if name not in _OURS else "it is set by the command"
            raise UserError(f"--slurm_additional_parameters {name}: {hint}")
        if names.count(name) > 1:
            raise UserError(f"--slurm_additional_parameters {name}: given twice")


_OURS = (
    "array", "error", "job_name", "nodes", "ntasks", "ntasks_per_node", "open_mode", "output",
    "signal",
)  # fmt: skip
"""Flags of sbatch on which submitit's array of jobs rests."""


def _gpus(options: Options) -> int:
    """Return the GPUs of a Slurm job, by either flag."""
    if options.slurm_gpus_per_node:
        return int(options.slurm_gpus_per_node)
    for resource in (options.slurm_gres or "").split(","):
        kind, *words = resource.partition("(")[0].split(":")
        if kind == "gpu":
            return int(words[-1]) if words and words[-1].isdigit() else 1
    return 0


def _name_of(setting: str) -> str:
    return setting.partition("=")[0].replace("-", "_")


def executor_of(root: Path, options: Options) -> Executor:
    """Return the executor that the flags ask for; an engine is imported only where it is used.

    Args:
        root: the results folder.
        options: `executor`, `workers`, `threads`, `use_cpu`, and the flags of the engine.

    Raises:
        UserError: the engine is not installed, or not to be found.
    """
    use_cpu = bool(options.training.get("use_cpu"))
    shared: dict[str, Any] = {"workers": options.workers, "threads": options.threads}
    if options.executor == _RAY:
        from eval_harness.sweep.ray_tasks import RayTasks

        return RayTasks(root, _WORK, address=options.ray_address, use_cpu=use_cpu, **shared)
    if options.executor == _SLURM:
        from eval_harness.sweep.slurm_jobs import SlurmJobs

        return SlurmJobs(root, _WORK, parameters=_slurm(options), use_cpu=use_cpu, **shared)
    return LocalWorkers(root, _WORK, devices=[] if use_cpu else None, **shared)


def _slurm(options: Options) -> dict[str, Any]:
    """Return the parameters of the jobs, by submitit's names."""
    names = (
        "partition",
        "account",
        "gpus_per_node",
        "gres",
        "cpus_per_task",
        "mem",
        "constraint",
        "setup",
    )
    given = {name: options.values[f"slurm_{name}"] for name in names}
    given["time"] = options.slurm_time
    if given["cpus_per_task"] is None and options.threads is not None:
        given["cpus_per_task"] = options.threads * max(_gpus(options), 1)
    if more := options.slurm_additional_parameters:
        given["additional_parameters"] = dict(line.split("=", 1) for line in more)
    return {name: value for name, value in given.items() if value is not None}
