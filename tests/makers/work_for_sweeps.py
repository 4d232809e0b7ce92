"""The work of a test's sweep: quick, without torch, controlled by the settings of each run.

Runs are made here too; `do` becomes part of their settings, and `work` reads it.
"""

import atexit
import json
import os
import signal
import time
from pathlib import Path

import made_results

from angels_share.errors import RunFailed, UserError
from eval_harness.runs.run import Run
from eval_harness.sweep.queue import Job
from eval_harness.tasks.lookup import tasks_named

WORK = "work_for_sweeps:work"
SEEN = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "HF_HUB_DISABLE_PROGRESS_BARS",
    "HF_DATASETS_DISABLE_PROGRESS_BARS",
)


def run(task="rte", seed=1, model="distilbert", **do):
    given = made_results.settings(task, do=do)
    return Run(made_results.model(model), tasks_named([task])[0], seed, given)


def job(*of, needs=None, cost=1.0, again=False, **do):
    return Job(run(*of, **do), needs, cost, again)


def result_of(one, score=0.5):
    """A result and predictions for `publish`."""
    made = made_results.result(one.model, one.task.name, one.seed, score, given=one.settings)
    return made, made_results.scoring(score)


def work(one, report):
    """Does what the run's settings say, in the order of these lines."""
    do = one.settings.row["do"]
    if "log" in do:
        note(do["log"], one)
    report(0.5)
    if "wait_for" in do:
        wait_for(do["wait_for"])
    if "hangs_once" in do and not Path(do["hangs_once"]).exists():
        Path(do["hangs_once"]).touch()
        time.sleep(600)
    if "hangs_at_exit" in do:
        atexit.register(time.sleep, 600)
    if "diverges" in do:
        raise RunFailed(f"step 7: the loss is not finite {do['diverges']}")
    if "refuses" in do:
        raise UserError(do["refuses"])
    if "breaks" in do:
        raise ZeroDivisionError(do["breaks"])
    if "killed_by" in do:
        os.kill(os.getpid(), do["killed_by"])
    if "killed_at" in do and not Path(do["marker"]).exists():
        Path(do["marker"]).touch()
        die_at(*do["killed_at"])
    if "no_room" in do:
        refuse(*do["no_room"])
    return result_of(one, float(Path(do["score"]).read_text()) if "score" in do else 0.5)


def die_at(name, count):
    """Kills this process at the n-th later flush to the disk, or the n-th rename."""
    owner = os if name == "fsync" else Path
    original, calls = getattr(owner, name), []

    def counted(*args):
        calls.append(args)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args)

    setattr(owner, name, counted)


def refuse(name, number):
    """Lets a function of `os` fail from here on, with an error that names no file."""

    def refused(*_):
        raise OSError(number, os.strerror(number))

    setattr(os, name, refused)


def note(folder, one):
    """Writes down what a worker sees, each in a new file: many processes may write at once."""
    seen = {name: os.environ.get(name) for name in SEEN}
    seen["blocks_interrupts"] = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    record = {"key": one.key, "task": one.task.name, "seed": one.seed, "pid": os.getpid(), **seen}
    Path(folder).mkdir(exist_ok=True)
    new = Path(folder) / f".{os.getpid()}"
    new.write_text(json.dumps(record))
    new.rename(new.with_name(f"{time.time_ns()}-{os.getpid()}.json"))


def notes(folder):
    """The notes of a sweep's workers, in the order in which they were written."""
    return [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]


def wait_for(path, seconds=60):
    """Waits until a file exists."""
    wait_until(Path(path).exists, f"nobody made {path}", seconds)


def wait_until(holds, complaint, seconds=60):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, complaint
        time.sleep(0.01)
