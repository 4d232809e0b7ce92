"""The choice of an executor: its flags, and what is refused before anything is read."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pretend_slurm
import pytest
import work_for_sweeps

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
        ([*SLURM, "--slurm_additional_parameters", "time=9"], "time: use --slurm_time"),
        ([*SLURM, "--slurm_additional_parameters", "array=9"], "it is set by the command"),
        ([*SLURM, "--slurm_additional_parameters", "qos=a", "qos=b"], "qos: given twice"),
        ([*SLURM, "--slurm_gpus_per_node", "-4"], "slurm_gpus_per_node -4"),
        ([*SLURM, "--slurm_gpus_per_node", "4", "--use_cpu"], "drop --slurm_gpus_per_node"),
        ([*SLURM, "--slurm_gres", "gpu:a100:4", "--use_cpu"], "drop --slurm_gres"),
        ([*SLURM, "--slurm_additional_parameters", "ntasks=4"], "it is set by the command"),
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
    words = (
        "--slurm_partition", "gpu", "--slurm_mem", "2G", "--slurm_account", "lab", "--slurm_gres",
        "gpu:1", "--slurm_constraint", "a100", "--slurm_gpus_per_node", "2",
        "--slurm_additional_parameters", "qos=low", "exclude=node7", "--slurm_setup", "echo begun",
    )  # fmt: skip
    made = executor_of(tmp_path, options(*SLURM, "--threads", "3", "--workers", "2", *words))
    assert (made.size, made.threads, made.has_gpus, made.is_here) == (2, 3, True, False)
    assert made.described(5) == "Slurm: 2 jobs of 60 minutes, which take what is left"
    said = batch_file(made, tmp_path)
    for line in (
        "partition=gpu", "mem=2G", "account=lab", "gres=gpu:1", "constraint=a100",
        "gpus-per-node=2", "cpus-per-task=6", "qos=low", "exclude=node7", "time=60",
    ):  # fmt: skip
        assert f"#SBATCH --{line}\n" in said
    assert "\necho begun\n" in said
    own = options(*SLURM, "--threads", "3", "--slurm_cpus_per_task", "8")
    other = tmp_path / "other"
    assert "#SBATCH --cpus-per-task=8\n" in batch_file(executor_of(other, own), other)
    for number, (gres, cores) in enumerate({"gpu:a100:4": 12, "nvme:1,gpu": 3, "gpu:2": 6}.items()):
        by_name, other = (
            options(*SLURM, "--threads", "3", "--slurm_gres", gres),
            tmp_path / f"{number}",
        )
        said = batch_file(executor_of(other, by_name), other)
        assert f"#SBATCH --cpus-per-task={cores}\n" in said


def batch_file(made, root):
    """Submit jobs for one run to pretended commands, and return the file that sbatch was given."""
    made.prepare([work_for_sweeps.job("rte", 1)])
    with made:
        pass
    newest = max(root.glob("slurm/*/*submission*.sh"), key=lambda path: path.stat().st_mtime_ns)
    return newest.read_text()


def test_no_engine_is_imported_for_this_machine(tmp_path):
    """Prevents seconds of imports at every start, and an extra that everyone must have."""
    code = (
        "import sys; from pathlib import Path; from eval_harness.commands import glue; "
        "from eval_harness.commands.executors import executor_of; "
        f"executor_of(Path({str(tmp_path)!r}), glue.COMMAND.parse(['--model', 'bert'])); "
        "sys.exit(bool({'ray', 'submitit'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
