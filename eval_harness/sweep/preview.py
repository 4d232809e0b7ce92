"""What a sweep would do, in numbers: before it starts, and instead of it. Imports no torch.

Times are those of earlier results on this machine, of the same model on the same task; where there
is none, the time is unknown.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from angels_share.hardware import processor
from eval_harness.results.record import TaskResult, texts_added
from eval_harness.results.store import RUNS, InvalidResult, load
from eval_harness.runs.run import Run
from eval_harness.runs.trackers import how_to_watch, trackers_in
from eval_harness.sweep.executor import Executor
from eval_harness.sweep.plan import Plan
from eval_harness.sweep.queue import Job
from eval_harness.sweep.worker import unfinished


@dataclass(frozen=True)
class Part:
    """The runs of one model on one task: they differ in their seeds.

    Attributes:
        label: the model's name, and what it is besides.
        task: the task's title.
        runs: how many there are.
        have: how many of them have a result.
        missing: how many are to be executed.
        train: training examples, those of a transfer set included.
        evaluated: evaluation examples.
        steps: optimizer steps of a run; None where the tokens of its text decide.
        is_at_least: whether there may be more steps: a question has as many windows as it needs.
        passes: training examples that a run reads, in all of its epochs.
        seconds: about how long a run takes; None if unknown.
        earlier: the number of earlier results that say so.
    """

    label: str
    task: str
    runs: int
    have: int
    missing: int
    train: int
    evaluated: int
    steps: int | None
    is_at_least: bool
    passes: float
    seconds: float | None
    earlier: int


def parts_of(
    plan: Plan, planned: Sequence[Job], todo: Iterable[Job], workers: Executor
) -> list[Part]:
    """Return the parts of a sweep, in its order.

    Args:
        plan: the plan.
        planned: all of its jobs, each once.
        todo: those that are executed.
        workers: who executes them.
    """
    missing = {job.key for job in todo}
    groups: dict[str, list[Run]] = {}
    for job in planned:
        groups.setdefault(job.key.rpartition("/")[0], []).append(job.run)
    return [_part(plan, runs, missing, workers) for runs in groups.values()]


def _part(plan: Plan, runs: Sequence[Run], missing: set[str], workers: Executor) -> Part:
    run = runs[0]
    extent, values = plan.extents[run.task.name], run.settings.task["values"]
    train = extent.train_of(run)
    given = values.get("max_steps", 0) > 0
    steps, passes = 0, 0.0
    if not is_evaluation_alone(values):
        steps = steps_of(values, train)
        update = values["per_device_train_batch_size"] * values["gradient_accumulation_steps"]
        passes = steps * update if given else train * values["num_train_epochs"]
    mark = " (D)" if run.method else " (teacher)" if plan.teacher else ""
    times = _times(plan.root, run, train, extent.evaluated, workers)
    return Part(
        label=f"{run.model.name}{mark}",
        task=run.task.title,
        runs=len(runs),
        have=sum(unfinished(plan.root, each.key) is None for each in runs),
        missing=sum(each.key in missing for each in runs),
        train=train,
        evaluated=extent.evaluated,
        steps=None if steps and run.task.kind.is_counted_late and not given else steps,
        # Its windows are known once it is tokenized, which takes as long as a short run.
        is_at_least="doc_stride" in run.task.kind.lengths and not given,
        passes=passes,
        seconds=median(times) if times else None,
        earlier=len(times),
    )


def is_evaluation_alone(values: Mapping[str, Any]) -> bool:
    """Return whether these are the settings of a run without training."""
    return "num_train_epochs" not in values


def steps_of(values: Mapping[str, Any], examples: int) -> int:
    """Return how many optimizer steps the Trainer makes.

    Args:
        values: the settings of the run.
        examples: the number of training examples.
    """
    if (most := values.get("max_steps", 0)) > 0:
        return int(most)
    batches: float = examples / values["per_device_train_batch_size"]
    whole = math.floor(batches) if values.get("dataloader_drop_last") else math.ceil(batches)
    updates: int = max(math.ceil(whole / values["gradient_accumulation_steps"]), 1)
    epochs: float = values["num_train_epochs"]
    return math.ceil(epochs * updates)


def _times(root: Path, run: Run, train: int, evaluated: int, workers: Executor) -> list[float]:
    """Return how long the run would take by each earlier result of its model on its task.

    Those under the same settings count as they are; without any, others are scaled by the examples
    that they read.
    """
    if not workers.is_here:
        return []
    folder = root / RUNS / run.model.key / run.task.name
    found = [each for path in folder.glob("*/seed-*.json") if (each := _loaded(path)) is not None]
    alike = [each for each in found if _is_alike(each, run, workers)]
    if same := [each for each in alike if each.settings == run.settings]:
        return [float(each.times["total"]) for each in same]
    reads = _reads(run.settings.task["values"], train, evaluated)
    return [
        each.times["prepare"] + (each.times["train"] + each.times["evaluate"]) * reads / before
        for each in alike
        if (before := _reads_of(each))
    ]


def _loaded(path: Path) -> TaskResult | None:
    try:
        return load(path)
    except InvalidResult:
        return None


def _is_alike(result: TaskResult, run: Run, workers: Executor) -> bool:
    """Return whether a result was made as the run would be: method, device, threads, processor."""
    method, made = result.settings.row.get("method"), result.provenance
    stages = ("prepare", "train", "evaluate", "total")
    if not all(isinstance(result.times.get(name), int | float) for name in stages):
        return False
    if (method or {}).get("name") != (run.method.name if run.method else None):
        return False
    machine = made.get("machine")
    if not isinstance(machine, dict) or machine.get("processor") != processor():
        return False
    if workers.has_gpus:
        return made.get("device") != "cpu"
    return made.get("device") == "cpu" and made.get("threads") == workers.threads


def _reads_of(result: TaskResult) -> float:
    examples = result.data.get("examples")
    if not isinstance(examples, dict):
        return 0.0
    evaluated = sum(int(examples.get(split, 0)) for split in result.scores)
    values = {**result.settings.task.get("values", {})}
    try:
        train = _learned(values, examples) + texts_added(result)
        return _reads(values, train, evaluated)
    except (KeyError, TypeError, ValueError):  # settings of another version
        return 0.0


def _learned(values: Mapping[str, Any], examples: Mapping[str, Any]) -> int:
    return 0 if is_evaluation_alone(values) else int(examples["train"])


def _reads(values: Mapping[str, Any], train: int, evaluated: int) -> float:
    """Return how many examples a run reads; evaluating one takes a third of training on it."""
    if is_evaluation_alone(values):
        return evaluated / 3
    update = values["per_device_train_batch_size"] * values["gradient_accumulation_steps"]
    return float(steps_of(values, train) * update + evaluated / 3)


def lines_of(plan: Plan, parts: Sequence[Part], workers: Executor) -> list[str]:
    """Return in three lines at most what a sweep is about to do.

    Args:
        plan: the plan.
        parts: its parts.
        workers: who executes them.
    """
    missing = sum(part.missing for part in parts)
    total = sum(part.runs for part in parts)
    have = sum(part.have for part in parts)
    if not missing:
        return ["the run has its result" if total == 1 else f"all {total} runs have results"]
    lines = [
        f"{count(total, 'run')} ({_product(plan, parts)}): {have} with results, {missing} to do"
    ]
    passes = sum(part.passes * part.missing for part in parts)
    what = f"{_large(passes)} training examples in all, epochs counted"
    if not passes:
        evaluated = sum(part.evaluated * part.missing for part in parts)
        what = f"evaluation alone, of {count(evaluated, 'example')} in all"
    lines.append(f"{what}; {_time(parts, workers)}")
    folder = plan.experiment.results_dir
    watch = how_to_watch(trackers_in(plan.experiment.given), folder)
    lines.append(
        f"{workers.described(missing)}; results go to {folder}; "
        f"{f'to watch: {watch}; ' if watch else ''}Ctrl-C is safe: the same command continues"
    )
    return lines


def transfer_lines(plan: Plan) -> list[str]:
    """Return what a transfer set adds to each task, and what was dropped of it; a line per task."""
    lines = []
    for task in plan.tasks:
        extent = plan.extents[task.name]
        if (added := extent.transfer) is None:
            continue
        names = ", ".join(file.name for file in added.files)
        more = (extent.train + added.texts) / extent.train
        lines.append(
            f"{task.title}: {count(extent.train, 'labelled example')} and "
            f"{count(added.texts, 'unlabelled text')} of {names}, {more:.1f} times the steps an "
            f"epoch; dropped: {added.blank:,} blank, {added.evaluated:,} of the evaluated splits; "
            "labels are not read"
        )
    return lines


def _product(plan: Plan, parts: Sequence[Part]) -> str:
    """Return how the number of runs comes about: models x tasks x seeds, and the teacher's."""
    factors = (
        count(len(plan.models), "model"),
        count(len(plan.tasks), "task"),
        count(len(plan.seeds), "seed"),
    )
    product = " x ".join(factors)
    others = sum(part.runs for part in parts if part.label.endswith("(teacher)"))
    return f"{product}, and {others} of the teacher" if others else product


def _time(parts: Sequence[Part], workers: Executor) -> str:
    """Return about how long the missing runs take, and how that is known."""
    known = [part for part in parts if part.missing and part.seconds is not None]
    unknown = sum(part.missing for part in parts if part.seconds is None)
    if not known:
        return f"time {_unknown(workers, 'no earlier results of the same on this machine')}"
    runs = sum(part.missing for part in known)
    seconds = sum((part.seconds or 0.0) * part.missing for part in known)
    seconds /= min(workers.size, runs)
    earlier = count(sum(part.earlier for part in known), "earlier result")
    rest = f"; {count(unknown, 'run')} of unknown time not in it" if unknown else ""
    return f"{'at least' if unknown else 'about'} {duration(seconds)} (from {earlier}{rest})"


def table_of(plan: Plan, parts: Sequence[Part], workers: Executor) -> str:
    """Return what would be done as an aligned table with a line of sums."""
    header = (
        "model", "task", "runs", "with results", "to do", "train on", "evaluate on",
        "steps per run", "time per run",
    )  # fmt: skip
    rows = [_row(part, workers) for part in parts]
    cells = [header, *rows]
    widths = [max(len(row[place]) for row in cells) for place in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if place in (0, 1, len(header) - 1) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    ruler = "  ".join("-" * width for width in widths)
    return "\n".join([lines[0], ruler, *lines[1:], "", *lines_of(plan, parts, workers)[:2]])


def _unknown(workers: Executor, why: str) -> str:
    """Return that a time is unknown, and why: results of this machine say nothing of others."""
    return f"unknown: {why if workers.is_here else 'other machines execute it'}"


def _row(part: Part, workers: Executor) -> tuple[str, ...]:
    time = _unknown(workers, "no earlier result")
    at_least = "at least " if part.is_at_least else ""
    if part.seconds is not None:
        time = f"{duration(part.seconds)}, from {count(part.earlier, 'earlier result')}"
    return (
        part.label,
        part.task,
        str(part.runs),
        str(part.have),
        str(part.missing),
        f"{part.train:,}",
        f"{part.evaluated:,}",
        "as its tokens are" if part.steps is None else f"{at_least}{part.steps:,}",
        time,
    )


def count(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 run" and "2 runs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return a duration in words, such as "40 s", "12 min" or "2 h 10 min"."""
    if seconds < 60:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours / 24:.1f} days"


def _large(number: float) -> str:
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number:,.0f}"
