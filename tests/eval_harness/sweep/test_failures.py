"""Sweeps: whatever fails, is killed or interrupted, the rest is done and nobody is left behind."""

import errno
import os
import signal
from pathlib import Path

import pytest
from disks import fill, small_disk
from sweeps import (
    another_sweep,
    numbers,
    quick,  # noqa: F401  (for all)
    reasons,
    seeds,
    sweep,
    when_written,
)
from work_for_sweeps import job, notes, wait_until

import eval_harness.sweep.local_workers
import eval_harness.sweep.scheduler
from angels_share.errors import RunFailed
from eval_harness.results.store import find

# What fails


def test_one_failing_run_stops_no_other(tmp_path, capsys):
    """Prevents a night's sweep from ending with its first bad run, or from hiding it."""
    jobs = [
        job("rte", 1),
        job("rte", 2, diverges="at 3e-4"),
        job("rte", 3, breaks="by zero"),
        job("rte", 4, killed_by=int(signal.SIGKILL)),
        job("rte", 5, killed_by=int(signal.SIGTERM)),
        job("rte", 6),
    ]
    outcome = sweep(tmp_path, jobs)
    assert seeds(outcome.done) == [1, 6]
    found = reasons(outcome)
    assert found[2] == "step 7: the loss is not finite at 3e-4"
    assert found[3].startswith("ZeroDivisionError: by zero (at work_for_sweeps.py:")
    assert found[4] == "its worker was killed by signal 9 (out of memory?)"
    assert found[5] == "its worker was killed by signal 15"
    summary = outcome.summary()
    assert len(summary) == 5
    line = "failed: distilbert on RTE, seed 2: step 7: the loss is not finite at 3e-4"
    assert line in summary
    assert summary[-1] == "4 of 6 runs failed; rerun the command to retry them"
    said = capsys.readouterr().err
    assert "6/6 runs, 4 failed" in said
    assert line not in said  # whoever asked tells it, below the tables
    assert "Traceback" not in said
    assert sweep(tmp_path, [jobs[0]]).summary() == []
    assert not list((tmp_path / "claims").glob("*.json"))


def test_secrets_are_in_no_reason_and_no_traceback(tmp_path, monkeypatch, capsys):
    """Fault 17: prevents a token from reaching the terminal or a log by way of a worker."""
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmn")
    monkeypatch.setenv("ANGELS_SHARE_TRACEBACK", "1")
    jobs = [job("rte", 1, breaks="at https://hf_abcdefghijklmn@hub")]
    summary = sweep(tmp_path, jobs).summary()
    said = "".join([*summary, capsys.readouterr().err])
    assert "ZeroDivisionError: at https://***@hub (at work_for_sweeps.py:" in said
    assert "Traceback" in said
    assert "hf_abcdefghijklmn" not in said


def test_work_that_cannot_be_imported_ends_the_sweep(tmp_path):
    """Prevents workers from being started for ever, each to fail alike."""
    with pytest.raises(RunFailed, match=r"^'no_such:work' cannot be imported"):
        sweep(tmp_path, [job()], work="no_such:work")


def test_a_worker_that_cannot_have_the_folder_says_why(tmp_path, capfd):
    """Prevents a worker's traceback in the place of a line."""
    (tmp_path / "claims").write_text("")
    with pytest.raises(RunFailed, match="/claims: that path is a file, not a folder"):
        sweep(tmp_path, [job()])
    assert "Traceback" not in capfd.readouterr().err


FLAKY = """
import os
from pathlib import Path
from work_for_sweeps import work
mark = Path(__file__).parent / "imports"
mark.mkdir(exist_ok=True)
(mark / str(os.getpid())).touch()
if len(list(mark.iterdir())) > {count}:
    {end}
"""
ENDS = {
    "os.kill(os.getpid(), 9)": "a worker ended before it was ready: it was killed by signal 9",
    "raise OSError(12, 'Cannot allocate memory')": "'flaky:work' cannot be imported as "
    "package.module:name: OSError: [Errno 12] Cannot allocate memory",
}


def flaky(tmp_path, monkeypatch, count, end):
    """Work that only a few processes can import, as where memory is short."""
    (tmp_path / "flaky.py").write_text(FLAKY.format(count=count, end=end))
    monkeypatch.syspath_prepend(tmp_path)
    return "flaky:work"


@pytest.mark.parametrize("end", ENDS)
def test_a_worker_that_cannot_be_replaced_stops_no_other(tmp_path, monkeypatch, end):
    """Prevents hours of healthy runs from being killed, since another's worker can't start."""
    gate = tmp_path / "gate"
    said = when_written(monkeypatch, "one worker less", gate.touch)
    jobs = [job("rte", 1, wait_for=str(gate)), job("rte", 2, breaks="cuda"),
            job("rte", 3), job("rte", 4)]  # fmt: skip
    work = flaky(tmp_path, monkeypatch, 2, end)
    outcome = sweep(tmp_path, jobs, work=work, workers=2)
    assert (seeds(outcome.done), list(reasons(outcome))) == ([1, 3, 4], [2])
    (line,) = said
    assert line.startswith(ENDS[end])


@pytest.mark.parametrize("end", ENDS)
def test_without_any_worker_left_the_rest_fails(tmp_path, monkeypatch, end):
    """Prevents a sweep that waits for ever, and runs that are neither done nor listed."""
    bad, other = job("rte", 1, breaks="cuda"), job("rte", 2)
    jobs = [bad, other, job("rte", 3, needs=bad.key), job("rte", 4, needs=other.key)]
    outcome = sweep(tmp_path, jobs, work=flaky(tmp_path, monkeypatch, 1, end), workers=1)
    found = reasons(outcome)
    assert (outcome.done, sorted(found)) == ((), [1, 2, 3, 4])
    assert found[1].startswith("ZeroDivisionError: cuda")
    reason = f"not started: no worker is left: {ENDS[end]}"
    assert [found[seed].startswith(reason) for seed in (2, 4)] == [True, True]


def test_a_process_that_cannot_be_made_stops_no_other(tmp_path, monkeypatch):
    """Prevents a sweep from ending where the machine has no more processes to give."""
    make, calls = eval_harness.sweep.local_workers.LocalWorkers.start, []

    def start(workers):
        calls.append(workers)
        if len(calls) == 2:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        make(workers)

    monkeypatch.setattr(eval_harness.sweep.local_workers.LocalWorkers, "start", start)
    said = when_written(monkeypatch, "", lambda: None)
    outcome = sweep(tmp_path, [job("rte", 1, breaks=""), job("rte", 2)], workers=1)
    assert sorted(reasons(outcome)) == [1, 2]
    assert said[0].startswith("no worker is left: a worker can't be started: Resource temp")


NO_ROOM = {
    errno.ENOSPC: "the disk is full: free",
    errno.EROFS: "that file system is read-only: ",
    errno.EFBIG: "a file size limit is reached",
}


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("fsync", errno.ENOSPC),
        ("fsync", errno.EROFS),
        ("write", errno.ENOSPC),
        ("fsync", errno.EFBIG),
    ],
)
def test_a_full_disk_ends_the_sweep(tmp_path, monkeypatch, name, number):
    """Prevents a night of runs whose results are thrown away, and an error that names no path.

    The disk is full when the first result is written, or when the second run's lease is taken.
    """
    said = when_written(monkeypatch, "", lambda: None)
    log, jobs = str(tmp_path / "log"), []
    for seed in (1, 2, 3):
        more = {"no_room": [name, number]} if seed == 1 else {}
        jobs.append(job("rte", seed, log=log, **more))
    outcome = sweep(tmp_path, jobs)
    line = f"{tmp_path}: {NO_ROOM[number]}"
    assert numbers(log) == [1]
    assert [text.startswith(line) for text in said] == [True]
    first, *others = outcome.failed
    assert first.reason.startswith(line)
    assert others
    assert all(each.reason.startswith(f"not started: {line}") for each in others)


def test_a_really_full_disk_ends_the_sweep(tmp_path, monkeypatch):
    """Prevents what the mocked error above doesn't show: half files, and a line for every run.

    There is room for a lease, but not for a result.
    """
    said = when_written(monkeypatch, "", lambda: None)
    with small_disk(tmp_path / "results", "128k") as root:
        assert seeds(sweep(root, [job("rte", 1)]).done) == [1]
        before = {path.name for path in (root / "runs").rglob("*") if path.is_file()}
        fill(root, leave=8192)
        outcome = sweep(root, [job("rte", seed) for seed in (1, 2, 3)], workers=1)
        assert sorted(reasons(outcome)) == [2, 3]
        assert all(f"{root}: the disk is full" in reason for reason in reasons(outcome).values())
        assert said[-1].startswith(f"{root}: the disk is full")
        assert {path.name for path in (root / "runs").rglob("*") if path.is_file()} == before
        (root / "filler").unlink()
        assert seeds(sweep(root, [job("rte", seed) for seed in (1, 2, 3)]).done) == [2, 3]


def test_what_is_under_way_outlives_a_full_disk(tmp_path, monkeypatch):
    """Prevents an hour of training from being thrown away, though there is room at its end."""
    gate = tmp_path / "gate"
    when_written(monkeypatch, "no more runs are started", gate.touch)
    jobs = [job("rte", 1, wait_for=str(gate)), job("rte", 2, no_room=["fsync", errno.EDQUOT]),
            job("rte", 3)]  # fmt: skip
    outcome = sweep(tmp_path, jobs, workers=2)
    assert (seeds(outcome.done), sorted(reasons(outcome))) == ([1], [2, 3])


def test_a_worker_that_hangs_at_its_end_is_replaced(tmp_path, monkeypatch):
    """Prevents a sweep that waits for ever for a process which a GPU's driver doesn't let go."""
    monkeypatch.setattr(eval_harness.sweep.local_workers, "PATIENCE_SECONDS", 0.1)
    jobs = [job("rte", 1, hangs_at_exit=True, breaks=""), job("rte", 2)]
    outcome = sweep(tmp_path, jobs, workers=1)
    assert (seeds(outcome.done), list(reasons(outcome))) == ([2], [1])


@pytest.mark.parametrize("where", [("fsync", 1), ("replace", 1), ("replace", 2), ("fsync", 3)])
def test_a_worker_killed_while_it_writes_a_result(tmp_path, where):
    """Fault 10: prevents a torn result, a lost neighbour, and more than one run done again."""
    log = str(tmp_path / "log")
    jobs = [
        job("rte", seed, log=log, **(
            {"killed_at": where, "marker": str(tmp_path / "killed")} if seed == 2 else {}
        ))
        for seed in (1, 2, 3)
    ]  # fmt: skip
    first = sweep(tmp_path, jobs)
    assert (seeds(first.done), list(reasons(first))) == ([1, 3], [2])
    found = find(tmp_path)
    assert sorted(result.seed for result in found.results) == [1, 3]
    assert found.invalid, "what the killed worker left isn't named"
    second = sweep(tmp_path, jobs)
    assert (seeds(second.done), seeds(second.skipped)) == ([2], [1, 3])
    assert numbers(log) == [1, 2, 2, 3]
    found = find(tmp_path)
    assert (len(found.results), found.invalid) == (3, ())


# Ends


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def begun(tmp_path, **do):
    """A sweep of four runs whose two workers are in the middle of the first two."""
    log = tmp_path / "log"
    parent = another_sweep(tmp_path, 4, 2, log=str(log), wait_for=str(tmp_path / "gate"), **do)
    wait_until(lambda: log.exists() and len(notes(log)) == 2, "nobody began")
    assert all(note["blocks_interrupts"] for note in notes(log)), "a worker hears Ctrl-C"
    return parent, [note["pid"] for note in notes(log)]


def test_workers_whose_parent_was_killed_finish_their_run(tmp_path):
    """Prevents workers that hang around for ever, and the loss of a run that was nearly through."""
    parent, workers = begun(tmp_path)
    parent.kill()
    parent.wait()
    (tmp_path / "gate").touch()
    wait_until(lambda: not any(map(is_alive, workers)), "a worker hangs around")
    assert "Traceback" not in parent.communicate()[1]
    assert len(find(tmp_path).results) == 2
    assert not list((tmp_path / "claims").glob("*.json"))


def test_a_sweep_killed_whole_goes_on_where_it_was(tmp_path):
    """Prevents more than the runs in flight from being lost to a kill -9 of everything."""
    parent, workers = begun(tmp_path)
    os.killpg(parent.pid, signal.SIGKILL)
    parent.communicate()
    wait_until(lambda: not any(map(is_alive, workers)), "kill -9 didn't")
    (tmp_path / "gate").touch()
    again = another_sweep(
        tmp_path, 4, 2, log=str(tmp_path / "log"), wait_for=str(tmp_path / "gate")
    )
    out, _ = again.communicate(timeout=60)
    assert out == "4 0\n"
    assert len(find(tmp_path).results) == 4


IMPATIENT = """
from eval_harness.child_process import ChildProcess
from eval_harness.sweep.local_workers import LocalWorkers
def and_again(method):
    def wrapped(*args, **names):
        os.kill(os.getpid(), signal.SIGINT)
        return method(*args, **names)
    return wrapped
LocalWorkers.stop = and_again(LocalWorkers.stop)
ChildProcess.end = and_again(ChildProcess.end)
"""


def test_an_interrupted_sweep_tells_what_failed(tmp_path, monkeypatch, capsys):
    """Prevents failures from going unmentioned where nobody is handed an outcome."""
    show = eval_harness.sweep.scheduler._Scheduler._show

    def interrupted(scheduler):
        show(scheduler)
        if scheduler.failures:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(eval_harness.sweep.scheduler._Scheduler, "_show", interrupted)
    jobs = [job("rte", 1, diverges=""), job("rte", 2, wait_for=str(tmp_path / "never"))]
    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path, jobs)
    assert "failed: distilbert on RTE, seed 1: step 7" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)]
)
@pytest.mark.parametrize("again", ["once", "twice"])
def test_an_interrupted_sweep_leaves_nobody_behind(tmp_path, number, status, again):
    """Prevents orphans, held leases and tracebacks of every worker after Ctrl-C or SIGTERM.

    Also where somebody is impatient: a second one while the workers are ended must not leave one
    of them, for which Python would wait for ever.
    """
    parent, workers = begun(tmp_path, prelude=IMPATIENT if again == "twice" else "")
    if number == signal.SIGINT:
        os.killpg(parent.pid, number)  # as a terminal does
    else:
        parent.send_signal(number)
    try:
        _, said = parent.communicate(timeout=30)
    finally:
        parent.kill()
    assert parent.returncode == status
    assert said.count("Traceback") == (number == signal.SIGINT)
    assert not any(map(is_alive, workers))
    assert not list((tmp_path / "claims").glob("*.json"))
