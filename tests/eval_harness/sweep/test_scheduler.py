"""Sweeps: what is missing is done, once, in order, by whom it should be."""

import json
import os
import subprocess
import sys
import threading

import pytest
from sweeps import (
    another_sweep,
    numbers,
    quick,  # noqa: F401  (for all)
    reasons,
    seeds,
    sweep,
)
from work_for_sweeps import SEEN, job, notes, result_of, wait_for, wait_until

import eval_harness.sweep.scheduler
from angels_share.hardware import cores, visible_gpus
from eval_harness.results.store import find, load, path_of, publish
from eval_harness.sweep.leases import Leases

# What is done


def test_only_what_is_missing_is_done(tmp_path, capsys):
    """Prevents a finished run from being paid for twice, and noise where there is nothing to do."""
    log = str(tmp_path / "log")
    jobs = [job("rte", seed, log=log) for seed in (1, 2, 3)]
    publish(tmp_path, *result_of(jobs[1].run))
    first = sweep(tmp_path, jobs)
    assert (seeds(first.done), seeds(first.skipped), first.failed) == ([1, 3], [2], ())
    assert numbers(log) == [1, 3]
    assert "2/2 runs" in capsys.readouterr().err
    second = sweep(tmp_path, jobs)
    assert (second.done, seeds(second.skipped)) == ((), [1, 2, 3])
    assert capsys.readouterr().err == ""
    assert not list((tmp_path / "claims").glob("*.json"))


def test_rerun_always_replaces_and_never_does_nothing(tmp_path, capsys):
    """Prevents an old number from outliving --rerun always, and a run under --rerun never.

    What --rerun never leaves undone doesn't go unmentioned.
    """
    jobs = [job("rte", seed) for seed in (1, 2)]
    publish(tmp_path, *result_of(jobs[0].run, score=0.9))
    outcome = sweep(tmp_path, jobs, rerun="never")
    assert (outcome.done, seeds(outcome.skipped), outcome.failed) == ((), [1], ())
    assert seeds(outcome.missing) == [2]
    assert (
        capsys.readouterr().err
        == "no result for 1 of 2 runs; pass --rerun missing to execute them\n"
    )
    assert sweep(tmp_path, jobs[:1], rerun="never").missing == ()
    assert capsys.readouterr().err == ""
    outcome = sweep(tmp_path, jobs, rerun="always")
    assert (seeds(outcome.done), outcome.skipped) == ([1, 2], ())
    assert load(path_of(tmp_path, jobs[0].key)).score == 0.5


def test_a_run_whose_result_lacks_something_is_done_again(tmp_path):
    """Prevents a teacher that was evaluated from being taken for one whose weights are there."""
    jobs = [job("rte", 1, again=True), job("rte", 2)]
    for each in jobs:
        publish(tmp_path, *result_of(each.run, score=0.9))
    assert seeds(sweep(tmp_path, jobs).done) == [1]
    assert load(path_of(tmp_path, jobs[0].key)).score == 0.5


def test_a_torn_result_is_named_and_done_again(tmp_path, capsys):
    """Fault 10: prevents half a file from counting as a run, or going unmentioned."""
    jobs = [job("rte", seed) for seed in (1, 2)]
    for each in jobs:
        publish(tmp_path, *result_of(each.run))
    torn = path_of(tmp_path, jobs[0].key)
    torn.write_text(torn.read_text()[:200])
    outcome = sweep(tmp_path, jobs)
    assert (seeds(outcome.done), seeds(outcome.skipped)) == ([1], [2])
    assert f"{torn}: is torn" in (said := capsys.readouterr().err)
    assert "; the run is repeated" in said
    assert load(torn).seed == 1


# What waits for what


def test_a_teacher_comes_before_those_that_learn_from_it(tmp_path):
    """Prevents a student from being started without its teacher, or waiting for one for ever."""
    log = str(tmp_path / "log")
    teacher = job("rte", 9, "bert", log=log)
    students = [job("rte", seed, needs=teacher.key, log=log) for seed in (1, 2)]
    outcome = sweep(tmp_path, [*students, teacher], workers=2)
    assert (len(outcome.done), outcome.failed) == (3, ())
    assert notes(log)[0]["seed"] == 9
    more = job("rte", 3, needs=teacher.key, log=log)  # whose teacher is there
    assert seeds(sweep(tmp_path, [more]).done) == [3]


def test_what_needs_a_failed_run_is_not_done(tmp_path):
    """Prevents students without a teacher, and a sweep that never ends."""
    teacher = job("rte", 9, "bert", diverges="")
    student = job("rte", 1, needs=teacher.key)
    grandchild = job("rte", 2, needs=student.key)
    orphan = job("rte", 3, needs="bert-0123abcd/rte/00000000/seed-1")
    outcome = sweep(tmp_path, [student, teacher, grandchild, orphan, job("rte", 4)])
    found = reasons(outcome)
    assert seeds(outcome.done) == [4]
    assert found[1] == "not started: it needs bert on RTE, seed 9, which failed"
    assert found[2] == "not started: it needs distilbert on RTE, seed 1, which failed"
    assert found[3].endswith("it needs bert-0123abcd/rte/00000000/seed-1, which has no result")


# The bar


@pytest.fixture
def shown(monkeypatch):
    """What is done and what it runs to, each time that it is shown."""
    states = []

    class Recorded:
        def show(self, done, total, counts, names):
            states.append((done, total))

        def close(self, *, is_complete):
            pass

    monkeypatch.setattr(eval_harness.sweep.scheduler, "view", Recorded)
    return states


def test_only_what_was_done_here_moves_the_bar(tmp_path, shown):
    """Prevents time left from shrinking to nothing after failures, which took no time."""
    bad = job("rte", 1, diverges="", cost=10.0)
    jobs = [bad, job("rte", 2, cost=5.0), job("rte", 3, needs=bad.key, cost=7.0),
            job("rte", 4, cost=20.0)]  # fmt: skip
    lease = Leases(tmp_path).take(jobs[3].key, "elsewhere").__enter__()

    def finish():
        wait_for(path_of(tmp_path, jobs[1].key))
        publish(tmp_path, *result_of(jobs[3].run))
        lease.__exit__(None, None, None)

    elsewhere = threading.Thread(target=finish)
    elsewhere.start()
    outcome = sweep(tmp_path, jobs)
    elsewhere.join()
    assert (seeds(outcome.done), sorted(reasons(outcome))) == ([2, 4], [1, 3])
    assert shown[-1] == (5.0, 5.0)


def test_the_bar_ends_at_its_end(tmp_path, shown):
    """Prevents a warning of the bar's: sums of the same numbers differ by their order."""
    first = job("rte", 3, cost=0.1)
    jobs = [job("rte", 1, cost=0.3), job("rte", 2, needs=first.key, cost=0.2), first]
    assert len(sweep(tmp_path, jobs).done) == 3
    assert shown[-1] == (0.6, 0.6)
    assert all(0 <= now <= total for now, total in shown)


def test_workers_have_no_bars_of_their_own(tmp_path):
    """Prevents the bar of the whole from being torn by those of models that are loaded."""
    log = str(tmp_path / "log")
    sweep(tmp_path, [job(log=log)])
    (note,) = notes(log)
    names = [name for name in SEEN if name.startswith("HF_")]
    code = (
        "from transformers.utils.logging import is_progress_bar_enabled as theirs\n"
        "from datasets.utils import are_progress_bars_disabled as are_off\n"
        "raise SystemExit(theirs() or not are_off())"
    )
    environment = {**os.environ, **{name: note[name] for name in names}}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=environment)


# Who does it


def test_cores_are_shared_out(tmp_path):
    """Prevents workers from fighting for the cores, and threads from changing with what is left.

    The number of threads changes a result's bits, and what is left after a kill is one run.
    """
    log, before = str(tmp_path / "log"), dict(os.environ)
    sweep(tmp_path, [job("rte", 1, log=log)], workers=cores())
    sweep(tmp_path, [job("rte", 2, log=log)], workers=1, threads=7)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
    assert [{note[name] for name in names} for note in notes(log)] == [{"1"}, {"7"}]
    assert dict(os.environ) == before


def test_each_worker_has_a_gpu_of_its_own(tmp_path):
    """Prevents eight workers on the first of eight GPUs."""
    log, gate = str(tmp_path / "log"), tmp_path / "gate"
    jobs = [job("rte", seed, log=log, wait_for=str(gate)) for seed in (1, 2)]
    open_gate = threading.Thread(
        target=lambda: (wait_until(lambda: len(notes(log)) == 2, "one is idle"), gate.touch())
    )
    open_gate.start()
    sweep(tmp_path, jobs, devices=["4", "GPU-5f"])
    open_gate.join()
    assert {note["CUDA_VISIBLE_DEVICES"] for note in notes(log)} == {"4", "GPU-5f"}


def test_no_device_is_no_gpu(tmp_path, monkeypatch):
    """Prevents --use_cpu from leaving the GPUs in sight."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    log = str(tmp_path / "log")
    sweep(tmp_path, [job(log=log)], devices=[])
    assert [note["CUDA_VISIBLE_DEVICES"] for note in notes(log)] == [""]


LISTED = """\
GPU 0: NVIDIA H200 (UUID: GPU-5d5b)
  MIG 3g.71gb     Device  0: (UUID: MIG-c6d4)
  MIG 3g.71gb     Device  1: (UUID: MIG-cba6)
GPU 1: NVIDIA H200 (UUID: GPU-77aa)
"""


def test_gpus_are_counted_without_torch(tmp_path, monkeypatch):
    """Prevents a sweep from seeing GPUs that it was not given, or seconds of imports to count."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho '{LISTED}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for value, seen in [("", []), ("-1", []), ("3", ["3"]), ("0, 2", ["0", "2"]),
                        ("1,-1,2", ["1"])]:  # fmt: skip
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert visible_gpus() == seen
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus() == ["MIG-c6d4", "MIG-cba6", "GPU-77aa"]
    tool.write_text("#!/bin/sh\necho 'no driver' >&2\nexit 9\n")
    assert visible_gpus() == []
    tool.unlink()
    assert visible_gpus() == []


def test_sweeping_needs_no_torch():
    """Prevents seconds of imports before a run, and threads fixed before their number is."""
    code = (
        "import sys, eval_harness.sweep.scheduler; "
        "sys.exit(bool({'torch', 'transformers'} & {*sys.modules}))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# Who else is at it


def test_what_another_is_at_is_waited_for(tmp_path, capsys):
    """Prevents a run from being done twice by two machines, and its result from being missed."""
    log = str(tmp_path / "log")
    jobs = [job("rte", seed, log=log) for seed in (1, 2)]
    lease = Leases(tmp_path).take(jobs[0].key, "elsewhere").__enter__()

    def finish():
        wait_for(path_of(tmp_path, jobs[1].key))
        publish(tmp_path, *result_of(jobs[0].run, score=0.75))
        lease.__exit__(None, None, None)

    elsewhere = threading.Thread(target=finish)
    elsewhere.start()
    outcome = sweep(tmp_path, jobs)
    elsewhere.join()
    assert (seeds(outcome.done), numbers(log)) == ([1, 2], [2])
    said = capsys.readouterr().err
    line = f"distilbert on RTE, seed 1: process {os.getpid()} on "
    assert said.count(line) == 1
    assert load(path_of(tmp_path, jobs[0].key)).score == 0.75


def test_the_first_finished_file_counts(tmp_path):
    """Fault 11: prevents a run that lost its lease from replacing the result that is there."""
    gate, score = tmp_path / "gate", tmp_path / "score"
    log = tmp_path / "log"
    score.write_text("0.25")
    slow = job("rte", 1, wait_for=str(gate), score=str(score), log=str(log))
    outcomes = []
    first = threading.Thread(target=lambda: outcomes.append(sweep(tmp_path, [slow])))
    first.start()
    wait_until(lambda: log.exists() and len(notes(log)) == 1, "nobody began")
    (lease,) = (tmp_path / "claims").glob("*.json")
    lease.write_text(json.dumps({**json.loads(lease.read_text()), "started": "1"}))  # it lapses
    publish(tmp_path, *result_of(slow.run, score=0.75))
    gate.touch()
    first.join()
    assert seeds(outcomes[0].done) == [1]
    assert load(path_of(tmp_path, slow.key)).score == 0.75


@pytest.mark.slow
def test_eight_processes_share_a_folder(tmp_path):
    """Fault 11: prevents lost results, duplicates, and two live workers on one run."""
    log = tmp_path / "log"
    sweeps = [another_sweep(tmp_path, 1600, 4, log=str(log)) for _ in range(2)]
    ends = [each.communicate(timeout=300) for each in sweeps]
    assert [each.returncode for each in sweeps] == [0, 0], ends
    found = find(tmp_path)
    assert (len(found.results), found.invalid) == (1600, ())
    done = [note["key"] for note in notes(log)]
    assert len(done) == len(set(done)) == 1600
    assert len({note["pid"] for note in notes(log)}) == 8
