"""Sweeps: what is missing is done, once, whatever fails or is killed."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from work_for_sweeps import WORK, job, notes, result_of, wait_for, wait_until

import eval_harness.sweep
from eval_harness.claims import Claims
from eval_harness.crew import cores, visible_gpus
from eval_harness.store import find, load, path_of, publish
from eval_harness.sweep import sweep

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Workers find the work beside this file, and what others are at is looked at often."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ["PYTHONPATH"]]))
    monkeypatch.setattr(eval_harness.sweep, "_POLL_SECONDS", 0.05)


def seeds(runs):
    return sorted(one.seed for one in runs)


def reasons(outcome):
    return {failure.run.seed: failure.reason for failure in outcome.failed}


def numbers(folder):
    return sorted(note["seed"] for note in notes(folder))


# What is done


def test_only_what_is_missing_is_done(tmp_path, capsys):
    """Prevents a finished run from being paid for twice, and noise where there is nothing to do."""
    log = str(tmp_path / "log")
    jobs = [job("rte", seed, log=log) for seed in (1, 2, 3)]
    publish(tmp_path, *result_of(jobs[1].run))
    first = sweep(tmp_path, jobs, work=WORK)
    assert (seeds(first.done), seeds(first.skipped), first.failed) == ([1, 3], [2], ())
    assert numbers(log) == [1, 3]
    assert "2/2 runs" in capsys.readouterr().err
    second = sweep(tmp_path, jobs, work=WORK)
    assert (second.done, seeds(second.skipped)) == ((), [1, 2, 3])
    assert capsys.readouterr().err == ""
    assert not list((tmp_path / "claims").glob("*.json"))


def test_rerun_always_replaces_and_never_does_nothing(tmp_path):
    """Prevents an old number from outliving --rerun always, and a run under --rerun never."""
    jobs = [job("rte", seed) for seed in (1, 2)]
    publish(tmp_path, *result_of(jobs[0].run, score=0.9))
    outcome = sweep(tmp_path, jobs, work=WORK, rerun="never")
    assert (outcome.done, seeds(outcome.skipped), outcome.failed) == ((), [1], ())
    outcome = sweep(tmp_path, jobs, work=WORK, rerun="always")
    assert (seeds(outcome.done), outcome.skipped) == ([1, 2], ())
    assert load(path_of(tmp_path, jobs[0].key)).score == 0.5


def test_a_run_whose_result_lacks_something_is_done_again(tmp_path):
    """Prevents a teacher that was judged from being taken for one whose weights are there."""
    jobs = [job("rte", 1, again=True), job("rte", 2)]
    for each in jobs:
        publish(tmp_path, *result_of(each.run, score=0.9))
    assert seeds(sweep(tmp_path, jobs, work=WORK).done) == [1]
    assert load(path_of(tmp_path, jobs[0].key)).score == 0.5


def test_a_torn_result_is_named_and_done_again(tmp_path, capsys):
    """Fault 10: prevents half a file from counting as a run, or going unmentioned."""
    jobs = [job("rte", seed) for seed in (1, 2)]
    for each in jobs:
        publish(tmp_path, *result_of(each.run))
    torn = path_of(tmp_path, jobs[0].key)
    torn.write_text(torn.read_text()[:200])
    outcome = sweep(tmp_path, jobs, work=WORK)
    assert (seeds(outcome.done), seeds(outcome.skipped)) == ([1], [2])
    assert f"{torn}: is torn" in (said := capsys.readouterr().err)
    assert "; runs again" in said
    assert load(torn).seed == 1


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
    outcome = sweep(tmp_path, jobs, work=WORK)
    assert seeds(outcome.done) == [1, 6]
    found = reasons(outcome)
    assert found[2] == "step 7: the loss is not finite at 3e-4"
    assert found[3].startswith("ZeroDivisionError: by zero (at work_for_sweeps.py:")
    assert found[4] == "its worker was killed by signal 9 (out of memory?)"
    assert found[5] == "its worker was killed by signal 15"
    said = capsys.readouterr().err
    assert "failed: distilbert on RTE, seed 2: step 7: the loss is not finite at 3e-4" in said
    assert "6/6 runs, 4 failed" in said
    assert "Traceback" not in said
    assert not list((tmp_path / "claims").glob("*.json"))


def test_secrets_are_in_no_reason_and_no_traceback(tmp_path, monkeypatch, capsys):
    """Fault 17: prevents a token from reaching the terminal or a log by way of a worker."""
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmn")
    monkeypatch.setenv("ANGELS_SHARE_TRACEBACK", "1")
    sweep(tmp_path, [job("rte", 1, breaks="at https://hf_abcdefghijklmn@hub")], work=WORK)
    said = capsys.readouterr().err
    assert "ZeroDivisionError: at https://***@hub (at work_for_sweeps.py:" in said
    assert "Traceback" in said
    assert "hf_abcdefghijklmn" not in said


def test_work_that_cannot_be_imported_ends_the_sweep(tmp_path):
    """Prevents workers from being started for ever, each to fail alike."""
    with pytest.raises(eval_harness.sweep.RunFailed, match=r"^no_such:work: a worker can't import"):
        sweep(tmp_path, [job()], work="no_such:work")


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
    first = sweep(tmp_path, jobs, work=WORK)
    assert (seeds(first.done), list(reasons(first))) == ([1, 3], [2])
    found = find(tmp_path)
    assert sorted(result.seed for result in found.results) == [1, 3]
    assert found.invalid, "what the killed worker left isn't named"
    second = sweep(tmp_path, jobs, work=WORK)
    assert (seeds(second.done), seeds(second.skipped)) == ([2], [1, 3])
    assert numbers(log) == [1, 2, 2, 3]
    found = find(tmp_path)
    assert (len(found.results), found.invalid) == (3, ())


# What waits for what


def test_a_teacher_comes_before_those_that_learn_from_it(tmp_path):
    """Prevents a student from being started without its teacher, or waiting for one for ever."""
    log = str(tmp_path / "log")
    teacher = job("rte", 9, "bert", log=log)
    students = [job("rte", seed, needs=teacher.key, log=log) for seed in (1, 2)]
    outcome = sweep(tmp_path, [*students, teacher], work=WORK, workers=2)
    assert (len(outcome.done), outcome.failed) == (3, ())
    assert notes(log)[0]["seed"] == 9
    more = job("rte", 3, needs=teacher.key, log=log)  # whose teacher is there
    assert seeds(sweep(tmp_path, [more], work=WORK).done) == [3]


def test_what_needs_a_failed_run_is_not_done(tmp_path):
    """Prevents students without a teacher, and a sweep that never ends."""
    teacher = job("rte", 9, "bert", diverges="")
    student = job("rte", 1, needs=teacher.key)
    grandchild = job("rte", 2, needs=student.key)
    orphan = job("rte", 3, needs="bert-0123abcd/rte/00000000/seed-1")
    outcome = sweep(tmp_path, [student, teacher, grandchild, orphan, job("rte", 4)], work=WORK)
    found = reasons(outcome)
    assert seeds(outcome.done) == [4]
    assert found[1] == "not done: it needs bert on RTE, seed 9, which failed"
    assert found[2] == "not done: it needs distilbert on RTE, seed 1, which failed"
    assert found[3].endswith("it needs bert-0123abcd/rte/00000000/seed-1, which has no result")


# Who does it


def test_cores_are_shared_out(tmp_path):
    """Prevents workers from fighting for the cores, and threads from changing with what is left.

    The number of threads changes a result's bits, and what is left after a kill is one run.
    """
    log, before = str(tmp_path / "log"), dict(os.environ)
    sweep(tmp_path, [job("rte", 1, log=log)], work=WORK, workers=cores())
    sweep(tmp_path, [job("rte", 2, log=log)], work=WORK, workers=1, threads=7)
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
    sweep(tmp_path, jobs, work=WORK, devices=["4", "GPU-5f"])
    open_gate.join()
    assert {note["CUDA_VISIBLE_DEVICES"] for note in notes(log)} == {"4", "GPU-5f"}


def test_gpus_are_counted_without_torch(tmp_path, monkeypatch):
    """Prevents a sweep from seeing GPUs that it was not given, or seconds of imports to count."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: H200 (UUID: GPU-a)'\necho 'GPU 1: H200 (UUID: b)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for value, seen in [("", []), ("-1", []), ("3", ["3"]), ("0, 2", ["0", "2"])]:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert visible_gpus() == seen
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus() == ["0", "1"]
    tool.write_text("#!/bin/sh\necho 'no driver' >&2\nexit 9\n")
    assert visible_gpus() == []
    tool.unlink()
    assert visible_gpus() == []


def test_sweeping_needs_no_torch():
    """Prevents seconds of imports before a run, and threads fixed before their number is."""
    code = (
        "import sys, eval_harness.sweep; sys.exit(bool({'torch', 'transformers'} & {*sys.modules}))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# Who else is at it


def test_what_another_is_at_is_waited_for(tmp_path, capsys):
    """Prevents a run from being done twice by two machines, and its result from being missed."""
    log = str(tmp_path / "log")
    jobs = [job("rte", seed, log=log) for seed in (1, 2)]
    claim = Claims(tmp_path).take(jobs[0].key, "elsewhere").__enter__()

    def finish():
        wait_for(path_of(tmp_path, jobs[1].key))
        publish(tmp_path, *result_of(jobs[0].run, score=0.75))
        claim.__exit__(None, None, None)

    elsewhere = threading.Thread(target=finish)
    elsewhere.start()
    outcome = sweep(tmp_path, jobs, work=WORK)
    elsewhere.join()
    assert (seeds(outcome.done), numbers(log)) == ([1, 2], [2])
    said = capsys.readouterr().err
    line = f"distilbert on RTE, seed 1: process {os.getpid()} on "
    assert said.count(line) == 1
    assert load(path_of(tmp_path, jobs[0].key)).score == 0.75


def test_the_first_finished_file_counts(tmp_path):
    """Fault 11: prevents a run that lost its claim from replacing the result that is there."""
    gate, score = tmp_path / "gate", tmp_path / "score"
    log = tmp_path / "log"
    score.write_text("0.25")
    slow = job("rte", 1, wait_for=str(gate), score=str(score), log=str(log))
    outcomes = []
    first = threading.Thread(target=lambda: outcomes.append(sweep(tmp_path, [slow], work=WORK)))
    first.start()
    wait_until(lambda: log.exists() and len(notes(log)) == 1, "nobody began")
    (claim,) = (tmp_path / "claims").glob("*.json")
    claim.write_text(json.dumps({**json.loads(claim.read_text()), "started": "1"}))  # it lapses
    publish(tmp_path, *result_of(slow.run, score=0.75))
    gate.touch()
    first.join()
    assert seeds(outcomes[0].done) == [1]
    assert load(path_of(tmp_path, slow.key)).score == 0.75


SWEEP = """
import json, sys
from pathlib import Path
from work_for_sweeps import WORK, job
import eval_harness.sweep
eval_harness.sweep._POLL_SECONDS = 0.05
if __name__ == "__main__":
    root, count, workers, do = sys.argv[1:]
    tasks = ("rte", "cola", "sst2", "mrpc")
    jobs = [job(tasks[n % 4], n, **json.loads(do)) for n in range(int(count))]
    out = eval_harness.sweep.sweep(Path(root), jobs, work=WORK, workers=int(workers))
    assert not out.failed, out.failed
    print(len(out.done), len(out.skipped))
"""


def another_sweep(tmp_path, count, workers, **do):
    """A sweep in a process of its own, and a process group of its own: another machine."""
    script = tmp_path / "sweep_elsewhere.py"
    script.write_text(SWEEP)
    words = [sys.executable, script, tmp_path, str(count), str(workers), json.dumps(do)]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


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


@pytest.mark.parametrize(
    ("number", "status", "last"),
    [(signal.SIGINT, -signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, 143, "terminated; ")],
)
def test_an_interrupted_sweep_leaves_nobody_behind(tmp_path, number, status, last):
    """Prevents orphans, held claims and tracebacks of every worker after Ctrl-C or SIGTERM."""
    parent, workers = begun(tmp_path)
    if number == signal.SIGINT:
        os.killpg(parent.pid, number)  # as a terminal does
    else:
        parent.send_signal(number)
    _, said = parent.communicate(timeout=60)
    assert parent.returncode == status
    assert said.splitlines()[-1].startswith(last)
    assert said.count("Traceback") == (number == signal.SIGINT)
    assert not any(map(is_alive, workers))
    assert not list((tmp_path / "claims").glob("*.json"))
