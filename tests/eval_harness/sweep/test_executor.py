"""The scheduler with an executor that has no process: all that the two share is executor.py."""

import ast
from collections import deque
from pathlib import Path

import pytest
from sweeps import (
    quick,  # noqa: F401  (for all)
    reasons,
    seeds,
    when_written,
)
from work_for_sweeps import job, result_of, work

from eval_harness.results.store import find, load, path_of, publish
from eval_harness.sweep import scheduler
from eval_harness.sweep.executor import Assignment, Lost, Progress, Started
from eval_harness.sweep.leases import Leases
from eval_harness.sweep.queue import group_of
from eval_harness.sweep.worker import execute, save


class InlineSlot:
    """Holds the run that it was given; the executor does the rest."""

    def __init__(self):
        self.key, self.last = None, None


class InlineExecutor:
    """Executes each run at once, within `begin`, in the test's own process and thread."""

    def __init__(self, root, size=1, on_begin=lambda run: None):
        self.size = size
        self.slots, self.begun, self.entered = [], [], []
        self._root, self._on_begin, self._events = root, on_begin, deque()

    def prepare(self, jobs):
        self.entered.append(f"told of {len(jobs)}")

    def __enter__(self):
        self.entered.append("in")
        return self

    def __exit__(self, *error):
        self.entered.append("out")

    def idle(self):
        return [slot for slot in self.slots if slot.key is None]

    def grow(self, runs):
        for _ in range(min(runs, self.size - len(self.slots))):
            self.slots.append(InlineSlot())
            self._events.append(Started())

    def begin(self, slot, assignment):
        assert isinstance(assignment, Assignment)
        assert slot.key is None, "a slot was given two runs"
        run = assignment.run
        slot.key, slot.last = run.key, group_of(run)
        self.begun.append(run.seed)
        self._events += self.outcome(slot, assignment)
        self._on_begin(run)

    def outcome(self, slot, assignment):
        run, progress = assignment.run, []

        def make(assignment):
            made = work(run, lambda share: progress.append(Progress(run.key, share)))
            save(self._root, assignment, *made)

        slot_name = f"slot {self.slots.index(slot)}"
        return [*progress, execute(assignment, Leases(self._root), slot_name, make)]

    def events(self, seconds):
        assert seconds > 0
        happened = list(self._events)
        self._events.clear()
        ended = {event.key for event in happened if not isinstance(event, (Started, Progress))}
        for slot in self.slots:
            if slot.key in ended:
                slot.key = None
        return happened


def test_a_sweep_needs_no_process(tmp_path, capsys):
    """Prevents the scheduler from relying on processes: a cluster's executor could not be written.

    One run waits for its teacher, one fails, one is held by another machine until all else is done.
    """
    teacher = job("rte", 9, "bert")
    students = [job("rte", seed, needs=teacher.key) for seed in (1, 2)]
    bad = job("cola", 3, diverges="at 3e-4")
    orphan = job("cola", 4, needs=bad.key)
    held, other = job("sst2", 5), job("sst2", 6)
    lease = Leases(tmp_path).take(held.key, "elsewhere").__enter__()
    begun = []

    def finish_elsewhere(run):
        begun.append(run.seed)
        if len(set(begun)) == 6 and begun.count(5) == 2:  # tried again, and still held
            publish(tmp_path, *result_of(held.run, score=0.75))
            lease.__exit__(None, None, None)

    executor = InlineExecutor(tmp_path, 2, on_begin=finish_elsewhere)
    jobs = [*students, bad, orphan, held, other, teacher]
    outcome = scheduler.sweep(tmp_path, jobs, executor)
    assert seeds(outcome.done) == [1, 2, 5, 6, 9]
    assert reasons(outcome) == {
        3: "step 7: the loss is not finite at 3e-4",
        4: "not started: it needs distilbert on CoLA, seed 3, which failed",
    }
    assert executor.entered == ["told of 7", "in", "out"]
    assert executor.begun.index(9) < min(executor.begun.index(1), executor.begun.index(2))
    assert 4 not in executor.begun
    assert executor.begun.count(5) == 3, "held, still held, found"
    assert sorted(one.seed for one in find(tmp_path).results) == [1, 2, 5, 6, 9]
    assert load(path_of(tmp_path, held.key)).score == 0.75
    said = capsys.readouterr().err
    assert said.count("distilbert on SST-2, seed 5: process ") == 1
    assert "7/7 runs, 2 failed" in said


def test_nothing_of_an_executor_starts_for_nothing(tmp_path):
    """Prevents a cluster's tasks from being requested where all results are there."""
    one = job("rte", 1)
    publish(tmp_path, *result_of(one.run))
    executor = InlineExecutor(tmp_path)
    assert seeds(scheduler.sweep(tmp_path, [one], executor).skipped) == [1]
    assert (executor.entered, executor.begun, executor.slots) == ([], [], [])


class LosingExecutor(InlineExecutor):
    """Loses the slot that gets seed 2, in the middle of that run; another one may take its place.

    With `saves` the run's result is saved before, as by a slot that dies between saving and saying.
    """

    def __init__(self, root, *, saves):
        super().__init__(root)
        self._saves = saves

    def outcome(self, slot, assignment):
        is_lost, key = assignment.run.seed == 2, assignment.run.key
        happened = [] if is_lost and not self._saves else super().outcome(slot, assignment)
        if not is_lost:
            return happened
        self.slots.remove(slot)
        return [Progress(key, 0.5), Lost(key, "its node was drained")]


@pytest.mark.parametrize("saves", [False, True])
def test_a_lost_slot_fails_its_run_alone(tmp_path, monkeypatch, saves):
    """Prevents a sweep that ends, or waits for ever, since one slot died; and a lost result."""
    when_written(monkeypatch, "", lambda: None)
    student = job("rte", 4, needs=job("rte", 2).key)
    jobs = [job("rte", 1), job("rte", 2), job("rte", 3), student]
    outcome = scheduler.sweep(tmp_path, jobs, LosingExecutor(tmp_path, saves=saves))
    if saves:
        assert (seeds(outcome.done), outcome.failed) == ([1, 2, 3, 4], ())
    else:
        assert seeds(outcome.done) == [1, 3]
        assert reasons(outcome) == {
            2: "its node was drained",
            4: "not started: it needs distilbert on RTE, seed 2, which failed",
        }


def test_the_scheduler_names_no_process():
    """Prevents an import that ties the scheduler to one kind of executor."""
    tree = ast.parse(Path(scheduler.__file__).read_text())
    named = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            named |= {f"{node.module}.{alias.name}" for alias in node.names}
    words = {word for name in named for word in name.split(".")}
    assert {"executor", "queue"} <= words, "the imports weren't found"
    assert not words & {"multiprocessing", "subprocess", "local_workers", "child_process"}
