"""Sweeps on Slurm, by submitit: against its own local jobs, and pretended commands of Slurm.

The pretended `sbatch`, `srun`, `sacct`, `scancel` and `scontrol` do what their manuals say about
arrays, time limits, preemption and requeuing; a second of Slurm's own takes a twentieth here.
"""

import json
import os
import signal
import subprocess
import sys
import time

import pretend_slurm
import pytest
import worlds
from places import ROOT
from sweeps import evaluated, numbers, reasons, seeds
from work_for_sweeps import WORK, job, notes, run, wait_until

from angels_share.errors import UserError
from eval_harness.results.store import find, publish
from eval_harness.sweep import scheduler, slurm_jobs
from eval_harness.sweep.executor import Assignment, Ended
from eval_harness.sweep.leases import Leases
from eval_harness.sweep.slurm_worker import Notes, NotingWorkers

pytest.importorskip("submitit", reason="the extra slurm is not installed")


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Notes are looked for often, and a job is given up soon after its end."""
    monkeypatch.setattr(slurm_jobs, "_LOOK_SECONDS", 0.2)
    monkeypatch.setattr(slurm_jobs, "_LATE_SECONDS", 1.0)


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A cluster of two nodes: its commands are the first on the PATH."""
    folder = pretend_slurm.make(tmp_path / "slurm-commands", nodes=2)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    yield folder
    for task in pretend_slurm.tasks(folder).values():
        pretend_slurm.ask(task, "cancel")
    wait_until(lambda: all_over(folder), "a job outlived the test")


def all_over(cluster):
    states = map(pretend_slurm.state_of, pretend_slurm.tasks(cluster).values())
    return not {"PENDING", "RUNNING"} & set(states)


def executor(root, *, workers=2, kind="slurm", **parameters):
    given = {"time": 60, **parameters}
    return slurm_jobs.SlurmJobs(
        root, WORK, parameters=given, workers=workers, threads=1, use_cpu=True, cluster=kind
    )


def sweep(root, jobs, **settings):
    return scheduler.sweep(root, jobs, executor(root, **settings))


def test_submitits_local_jobs_share_the_runs(tmp_path, capsys):
    """Prevents runs that are made twice or never, and reasons that are lost on the way."""
    log = str(tmp_path / "log")
    teacher = job("rte", 9, "bert", log=log)
    students = [job("rte", seed, needs=teacher.key, log=log) for seed in (1, 2, 3)]
    bad = job("cola", 4, diverges="at 3e-4", log=log)
    orphan = job("cola", 5, needs=bad.key, log=log)
    outcome = sweep(tmp_path, [*students, bad, orphan, teacher], kind="local", workers=2)
    assert seeds(outcome.done) == [1, 2, 3, 9]
    assert reasons(outcome) == {
        4: "step 7: the loss is not finite at 3e-4",
        5: "not started: it needs distilbert on CoLA, seed 4, which failed",
    }
    # What failed at once may have been begun by both, before either had noted that.
    assert [number for number in numbers(log) if number != 4] == [1, 2, 3, 9]
    assert {note["OMP_NUM_THREADS"] for note in notes(log)} == {"1"}
    order = [note["seed"] for note in notes(log)]
    assert order.index(9) < min(order.index(seed) for seed in (1, 2, 3))
    assert len(find(tmp_path).results) == 4
    assert "logs in" in capsys.readouterr().err


def test_an_array_shares_the_runs(tmp_path, cluster, capsys):
    """Prevents an array whose jobs don't find their work, and logs that nobody is told of."""
    log = str(tmp_path / "log")
    jobs = [job("rte", seed, log=log) for seed in range(6)]
    asked = {"partition": "gpu", "mem": "2G", "additional_parameters": {"qos": "low"}}
    outcome = sweep(tmp_path, jobs, workers=3, **asked)
    assert (seeds(outcome.done), outcome.failed) == ([0, 1, 2, 3, 4, 5], ())
    assert numbers(log) == [0, 1, 2, 3, 4, 5]
    (script,) = tmp_path.glob("slurm/*/*_submission.sh")
    flags = script.read_text()
    for flag in ("partition=gpu", "mem=2G", "qos=low", "time=60", "array=0-2%3"):
        assert f"#SBATCH --{flag}\n" in flags
    said = capsys.readouterr().err
    (err,) = {line.partition("logs in ")[2] for line in said.splitlines() if "logs in" in line}
    assert list(tmp_path.glob(err.removeprefix(f"{tmp_path}/")))


@pytest.mark.parametrize("how", ["preempt", "signal-USR2", "cancel"])
def test_a_job_that_is_taken_away_loses_nothing(tmp_path, cluster, how):
    """Prevents a run that is lost, or called failed, since its job was preempted or cancelled.

    A preempted job gets SIGTERM and is then killed and requeued by Slurm; at its own signal
    submitit has it requeued; a cancelled one leaves its run to the other job.
    """
    hung = tmp_path / "hung"
    jobs = [job("rte", 1, hangs_once=str(hung)), *(job("rte", seed) for seed in (2, 3))]
    taken = []

    def take_away(line):
        if hung.exists() and not taken:
            (lease,) = tmp_path.glob("claims/*seed-1.json")
            pid = json.loads(lease.read_text())["pid"]
            for name, task in pretend_slurm.tasks(cluster).items():
                if os.getpgid(pid) == int((task / "step").read_text()):
                    pretend_slurm.ask(task, how)
                    taken.append(name)

    class Watched(slurm_jobs.SlurmJobs):
        def events(self, seconds):
            take_away("")
            return super().events(seconds)

    watched = Watched(tmp_path, WORK, parameters={"time": 60}, workers=2, threads=1, use_cpu=True)
    outcome = scheduler.sweep(tmp_path, jobs, watched)
    assert (seeds(outcome.done), outcome.failed) == ([1, 2, 3], ())
    (name,) = taken
    task = pretend_slurm.tasks(cluster)[name]
    wait_until(lambda: all_over(cluster), "a job goes on without any run")
    assert pretend_slurm.runs_of(task) == (1 if how == "cancel" else 2)


@pytest.mark.slow
def test_a_preempted_job_changes_no_bit(tmp_path, cluster, monkeypatch):
    """Prevents results that depend on who executes a run, or on how often it was begun."""
    world = worlds.make(tmp_path / "world")
    expected = evaluated(world, tmp_path / "local", epochs=10, workers=2)
    began, taken, real = {}, [], slurm_jobs.SlurmJobs.events

    def events(self, seconds):
        for lease in tmp_path.glob("slurm-results/claims/*.json"):
            if time.monotonic() - began.setdefault(lease, time.monotonic()) > 0.5 and not taken:
                pretend_slurm.ask(pretend_slurm.tasks(cluster)["101_0"], "preempt")
                taken.append(lease.name)
        return real(self, seconds)

    monkeypatch.setattr(slurm_jobs.SlurmJobs, "events", events)
    given = {"executor": "slurm", "slurm_time": 600, "workers": 2}
    assert evaluated(world, tmp_path / "slurm-results", epochs=10, **given) == expected
    assert taken
    assert pretend_slurm.runs_of(pretend_slurm.tasks(cluster)["101_0"]) == 2


@pytest.mark.slow  # the time must be enough to start in, on a busy machine too
def test_a_job_out_of_time_is_requeued(tmp_path, cluster):
    """Prevents a sweep that ends with the time of its jobs."""
    hung = tmp_path / "hung"
    outcome = sweep(
        tmp_path, [job("rte", 1, hangs_once=str(hung)), job("rte", 2)], workers=1, time=15
    )
    assert (seeds(outcome.done), outcome.failed) == ([1, 2], ())
    (task,) = pretend_slurm.tasks(cluster).values()
    assert pretend_slurm.runs_of(task) == 2


def test_jobs_that_end_without_a_result_are_told_of(tmp_path, cluster):
    """Prevents a command that waits for ever for jobs that Slurm has ended."""
    # Lines of shell that end the job before its work begins.
    outcome = sweep(tmp_path, [job("rte", 1)], workers=1, setup=["exit 3"])
    (reason,) = reasons(outcome).values()
    assert reason.startswith("the Slurm jobs ended without it (FAILED): see ")
    assert reason.endswith("_*_log.err")


def test_what_slurm_refuses_is_one_line(tmp_path, cluster):
    """Prevents a traceback for a partition that doesn't exist."""
    with pytest.raises(UserError, match=r"jobs were refused: .*invalid partition specified: gold"):
        sweep(tmp_path, [job("rte", 1)], partition="gold")


def test_a_machine_without_slurm_is_told(tmp_path, monkeypatch):
    """Prevents a traceback of submitit where no job can be submitted."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no sbatch on the PATH"):
        executor(tmp_path)


INTERRUPTED = """
import sys
from pathlib import Path
from test_slurm_helper import sweep_of
sweep_of(Path(sys.argv[1]), sys.argv[2])
"""


HELPER = """
from work_for_sweeps import WORK, job
from eval_harness.sweep import scheduler, slurm_jobs
slurm_jobs._LOOK_SECONDS = 0.2
def sweep_of(root, gate):
    jobs = [job("rte", seed, wait_for=gate, log=str(root / "log")) for seed in (1, 2, 3)]
    executor = slurm_jobs.SlurmJobs(
        root, WORK, parameters={"time": 60}, workers=2, threads=1, use_cpu=True)
    return scheduler.sweep(root, jobs, executor)
"""


def test_the_command_may_be_interrupted(tmp_path, cluster, monkeypatch, capsys):
    """Prevents jobs that are submitted twice, or end with the command that only looks at them."""
    (tmp_path / "test_slurm_helper.py").write_text(HELPER)
    monkeypatch.syspath_prepend(tmp_path)
    gate, log = tmp_path / "gate", tmp_path / "log"
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    first = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, tmp_path, gate], cwd=ROOT, text=True,
        stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    wait_until(lambda: len(notes(log)) == 2, "no job began")
    first.send_signal(signal.SIGINT)
    said = first.communicate(timeout=60)[1]
    assert "the Slurm jobs go on (to end them: scancel 101)" in said

    import test_slurm_helper

    began = time.monotonic()
    real = slurm_jobs.SlurmJobs.events

    def events(self, seconds):
        if time.monotonic() - began > 2:
            gate.touch()
        return real(self, seconds)

    monkeypatch.setattr(slurm_jobs.SlurmJobs, "events", events)
    outcome = test_slurm_helper.sweep_of(tmp_path, str(gate))
    assert (seeds(outcome.done), numbers(log)) == ([1, 2, 3], [1, 2, 3])
    assert list(pretend_slurm.tasks(cluster)) == ["101_0", "101_1"], "submitted again"
    assert "Slurm job 101: logs in" in capsys.readouterr().err


def test_what_ended_in_another_job_is_not_begun(tmp_path):
    """Prevents each job of an array from repeating for hours what fails, or is made again."""
    ends = Notes(tmp_path / "notes")
    failed, made = job("rte", 1), job("rte", 2, again=True)
    publish(tmp_path, *_result(made.run))
    ends.write(Ended(failed.key, "failed", "no memory", refused=True))
    ends.write(Ended(made.key, "done"))
    log = str(tmp_path / "log")
    rest = job("rte", 3, log=log)
    workers = NotingWorkers(tmp_path, WORK, ends, threads=1, devices=[])
    outcome = scheduler.sweep(tmp_path, [failed, made, rest], workers)
    assert (reasons(outcome), seeds(outcome.done)) == ({1: "no memory"}, [2, 3])
    assert outcome.failed[0].refused
    assert numbers(log) == [3]
    assert ends.read(rest.key) == Ended(rest.key, "done")


def test_a_rerun_whose_worker_dies_is_noted(tmp_path, monkeypatch):
    """Prevents each job from repeating a crash because the older result is still there."""
    monkeypatch.setattr("eval_harness.sweep.slurm_worker._KILLING_SECONDS", 0.0)
    again = job("rte", 1, again=True, killed_by=int(signal.SIGKILL))
    publish(tmp_path, *_result(again.run))
    ends = Notes(tmp_path / "notes")
    workers = NotingWorkers(tmp_path, WORK, ends, threads=1, devices=[])
    outcome = scheduler.sweep(tmp_path, [again], workers)
    assert not outcome.done
    assert ends.read(again.key).how == "failed"


def _result(one):
    from work_for_sweeps import result_of

    return result_of(one)


def test_a_job_does_not_wait_for_the_last_run_of_another(tmp_path, monkeypatch):
    """Prevents nodes that are kept for hours by jobs that only wait; teachers are waited for."""
    monkeypatch.setattr("eval_harness.sweep.slurm_worker.BEAT_SECONDS", 0.0)
    ends = Notes(tmp_path / "notes")
    held, teacher = job("rte", 1), job("rte", 9, "bert")
    student = job("rte", 2, needs=teacher.key)
    workers = NotingWorkers(tmp_path, WORK, ends, threads=1, devices=[], lapse=0.5)
    workers.prepare([held, teacher, student])
    with Leases(tmp_path, lapse=0.5).take(held.key, "elsewhere"), workers:
        workers.grow(1)
        wait_until(lambda: workers.events(0.1) or workers.idle(), "no worker")
        wait_until(lambda: _ends(workers, held) == "left", "it waits for ever")
        assert ends.read(held.key) is None
    with Leases(tmp_path, lapse=0.5).take(teacher.key, "elsewhere"), workers:
        workers.grow(1)
        wait_until(lambda: workers.events(0.1) or workers.idle(), "no worker")
        began = time.monotonic()
        while time.monotonic() - began < 1.5:
            assert _ends(workers, teacher) == "held"


def _ends(workers, one):
    (slot,) = workers.idle()
    workers.begin(slot, Assignment(one.run))
    happened = []
    wait_until(lambda: happened.extend(workers.events(0.1)) or not slot.key, "no event")
    return next(event.how for event in happened if isinstance(event, Ended))


def test_a_note_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch):
    """Prevents a full disk from ending a job whose other runs could still be read."""
    ends = Notes(tmp_path / "notes")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("eval_harness.sweep.slurm_worker.write_json", full)
    ends.write(Ended(run("rte", 1).key, "done"))
    assert ends.read(run("rte", 1).key) is None
