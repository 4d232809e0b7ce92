"""The choice of an executor: its flags, and what is refused before anything is read."""

import os
from importlib.util import find_spec

import pretend_slurm
import pytest

from angels_share.errors import UserError
from eval_harness.commands import glue
from eval_harness.commands.executors import executor_of
from eval_harness.sweep.local_workers import LocalWorkers

SLURM = ("--executor", "slurm", "--slurm_time", "60")


def options(*words):
    return glue.COMMAND.parse(["--model", "bert", *words])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--ray_address", "auto"], "--ray_address needs --executor ray"),
        (["--slurm_mem", "2G"], "--slurm_mem needs --executor slurm"),
        (["--executor", "ray", "--slurm_time", "9"], "--slurm_time needs --executor slurm"),
        (["--executor", "slurm"], "--executor slurm needs --slurm_time"),
        (["--executor", "slrum"], "expected one of local, ray, slurm"),
        ([*SLURM, "--slurm_additional_parameters", "low"], "expected NAME=VALUE"),
    ],
)
def test_flags_of_another_engine_are_refused(words, said):
    """Prevents an address or a partition that is given and never used."""
    with pytest.raises(UserError, match=said):
        glue.experiment(options(*words))


def test_without_a_flag_it_is_this_machine(tmp_path):
    """Prevents an engine from being imported, or missed, where nobody asked for it."""
    made = executor_of(tmp_path, options("--workers", "3", "--threads", "2"))
    assert isinstance(made, LocalWorkers)
    assert (made.size, made.threads, made.is_here) == (3, 2, True)


@pytest.mark.parametrize(("engine", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_an_engine_that_is_not_installed_is_named(tmp_path, monkeypatch, engine, package):
    """Prevents a traceback where an extra is missing."""
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else real(name)
    )
    given = SLURM if engine == "slurm" else ("--executor", "ray")
    with pytest.raises(UserError, match=rf"--executor {engine} needs {package}.*'\.\[{engine}\]'"):
        executor_of(tmp_path, options(*given))


def test_rays_client_is_refused(tmp_path):
    """Prevents a connection through which half of what is asked of Ray does not work."""
    given = options("--executor", "ray", "--ray_address", "ray://head:10001")
    with pytest.raises(
        UserError, match="`ray job submit`" if find_spec("ray") else "not installed"
    ):
        executor_of(tmp_path, given)


def test_the_slurm_flags_reach_the_batch_file(tmp_path, monkeypatch):
    """Prevents a flag of Slurm's that is taken and lost."""
    pytest.importorskip("submitit", reason="the extra slurm is not installed")
    folder = pretend_slurm.make(tmp_path / "slurm-commands")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    made = executor_of(
        tmp_path,
        options(
            *SLURM, "--threads", "3", "--workers", "2", "--slurm_partition", "gpu", "--slurm_mem",
            "2G", "--slurm_account", "lab", "--slurm_gres", "gpu:1", "--slurm_constraint", "a100",
            "--slurm_additional_parameters", "qos=low", "exclude=node7",
            "--slurm_setup", "true",
        ),
    )  # fmt: skip
    assert (made.size, made.threads, made.has_gpus, made.is_here) == (2, 3, True, False)
    assert made.described(5) == "Slurm: 2 jobs of 60 minutes, which take what is left"
    assert made.parameters == {
        "account": "lab",
        "additional_parameters": {"qos": "low", "exclude": "node7"},
        "constraint": "a100",
        "cpus_per_task": 3,
        "gres": "gpu:1",
        "mem": "2G",
        "partition": "gpu",
        "setup": ["true"],
        "time": 60,
    }
