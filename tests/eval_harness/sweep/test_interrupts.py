"""Ctrl-C and SIGTERM: raised once, and never where something is being put in request."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

import pytest
from work_for_sweeps import wait_until

from eval_harness.sweep.interrupts import Interrupts


def interrupt(number=signal.SIGINT):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_it_waits_until_things_are_in_order(number, raised):
    """Prevents a process that was started and is known to nobody; also where a thread hears it."""
    over = threading.Event()
    threading.Thread(target=over.wait).start()  # as a bar has one: no mask of ours is its
    steps = []

    def work():
        with Interrupts() as interrupts:
            with interrupts.held():
                with interrupts.held():
                    interrupt(number)
                    steps.append("inner")
                steps.append("outer")
            steps.append("after")

    with pytest.raises(raised) as caught:
        work()
    over.set()
    assert steps == ["inner", "outer"]
    assert number == signal.SIGINT or caught.value.code == 143


def test_only_the_first_is_raised():
    """Prevents a second Ctrl-C from ending what the first began, and a later one from no effect."""
    before = signal.getsignal(signal.SIGINT)
    steps = []

    def work():
        with Interrupts():
            try:
                interrupt()
            finally:
                interrupt()
                interrupt(signal.SIGTERM)
                steps.append("in order")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["in order"]
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt):
        interrupt()


def test_what_nohup_keeps_away_stays_away(monkeypatch):
    """Prevents a sweep in the background from being ended by a Ctrl-C that isn't for it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts():
            interrupt()
    finally:
        signal.signal(signal.SIGINT, before)


TIMING = """
import os, signal, sys, time
from angels_share.cli import Command, run_command
from eval_harness.speed import session as speed
from eval_harness.speed.bench_process import BenchProcess
from benches import request, setup
class Slow(BenchProcess):
    def timed(self, threads, batch_size):
        print(self.facts()["peak_bytes"], flush=True)  # the child's process number
        time.sleep(60)
def run(options):
    speed.timed([request()], setup(), lambda each: Slow(each, "benches:Quiet"))
if __name__ == "__main__":
    sys.exit(run_command(Command("a_command", "", (), run, ()), []))
"""


@pytest.mark.parametrize("to", ["parent", "all"])
def test_a_timed_model_does_not_outlive_who_timed_it(tmp_path, to):
    """Prevents a model in memory that nobody uses any more, and more than one line about it."""
    script = tmp_path / "timing.py"
    script.write_text(TIMING)
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as parent:
        child = int(parent.stdout.readline())
        try:
            (os.killpg if to == "all" else os.kill)(parent.pid, signal.SIGTERM)
            _, said = parent.communicate(timeout=30)
            with pytest.raises(ProcessLookupError):
                os.kill(child, 0)
        finally:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
    assert parent.returncode == 143
    assert said == "a_command: terminated; completed work is saved\n"


SWEEPING = """
import sys
from pathlib import Path
from angels_share.cli import Command, run_command
from work_for_sweeps import job
from sweeps import sweep
def run(options):
    root = Path(sys.argv[1])
    jobs = [job("rte", 1), job("rte", 2, wait_for=str(root / "never"))]
    jobs += [job("rte", seed, needs=jobs[1].key) for seed in (3, 4)]
    sweep(root, jobs, workers=2, rerun=sys.argv[2])
if __name__ == "__main__":
    sys.exit(run_command(Command("a_command", "", (), run, ()), []))
"""
GOES_ON = "1 of 4 runs have results; the same command goes on from there"
STARTS_AGAIN = "1 of 4 runs repeated; --rerun always would begin again"


@pytest.mark.parametrize(
    ("number", "rerun", "said"),
    [
        (signal.SIGINT, "missing", f"interrupted; {GOES_ON}"),
        (signal.SIGTERM, "missing", f"terminated; {GOES_ON}"),
        (signal.SIGINT, "always", f"interrupted; {STARTS_AGAIN}"),
    ],
)
def test_an_interrupted_sweep_says_how_far_it_came(tmp_path, number, rerun, said):
    """Prevents somebody from not knowing what Ctrl-C has cost, and more than one line about it."""
    script = tmp_path / "sweeping.py"
    script.write_text(SWEEPING)
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path), rerun],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            wait_until(lambda: list(tmp_path.glob("runs/*/*/*/seed-1.json")), "no first run")
            wait_until(lambda: len(list((tmp_path / "claims").glob("*.json"))) == 1, "no second")
            os.killpg(process.pid, number)
            _, written = process.communicate(timeout=60)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 128 + number
    assert written == f"a_command: {said}\n"
    assert not list((tmp_path / "claims").glob("*.json"))
