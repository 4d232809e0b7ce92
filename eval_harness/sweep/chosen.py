"""The seed whose model is kept of a model and a task: the one nearest the median. No torch."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from angels_share.files import write_atomically
from angels_share.sealed_folder import is_whole
from eval_harness.results.store import load, path_of
from eval_harness.runs.run import Run
from eval_harness.sweep.queue import Job


@dataclass(frozen=True)
class Chosen:
    """The run that stands for all seeds of a model, a task and settings.

    Attributes:
        run: the run.
        score: its score.
        median: the median of all seeds.
        seeds: how many seeds there are.
    """

    run: Run
    score: float
    median: float
    seeds: int

    def __str__(self) -> str:
        method = f" ({self.run.method.name})" if self.run.method else ""
        what = f"{self.run.model.name}{method} on {self.run.task.title}"
        which = f"the model of seed {self.run.seed} ({self._said(self.score)})"
        if self.seeds == 1:
            return f"{what}: {which}, the only seed"
        middle = f"the median {self._said(self.median)} of {self.seeds}"
        return f"{what}: {which}, the seed nearest {middle}"

    def _said(self, score: float) -> str:
        """Return a score as a percentage, or a perplexity as it is."""
        is_share = self.run.task.higher_is_better
        return f"{100 * score:.1f}" if is_share else f"perplexity {score:.2f}"


def nearest_to_median(root: Path, runs: Iterable[Run]) -> list[Chosen]:
    """Return the run nearest the median of each model, task and settings; of two, the lower one.

    Args:
        root: the results folder.
        runs: runs that have results; those with an undefined score stand for nothing.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.key.rpartition("/")[0], []).append(run)
    return [chosen for group in groups.values() if (chosen := _nearest(root, group)) is not None]


def _nearest(root: Path, runs: Sequence[Run]) -> Chosen | None:
    scored = [(run, load(path_of(root, run.key)).score) for run in runs]
    known = [(run, score) for run, score in scored if score is not None]
    if not known:
        return None
    middle = median(score for _, score in known)
    run, score = min(known, key=lambda each: (abs(each[1] - middle), each[1], each[0].seed))
    return Chosen(run, score, middle, len(known))


def jobs_for_models(chosen: Iterable[Chosen], planned: Sequence[Job]) -> list[Job]:
    """Return the jobs that make the models of chosen runs that were not saved, with their teachers.

    A run that is made again has the same bits, so its result stays what it was.

    Args:
        chosen: the runs whose models are wanted.
        planned: the jobs of the command.
    """
    jobs = {job.key: job for job in planned}
    missing = []
    for each in chosen:
        job = jobs[each.run.key]
        if job.run.save_weights_to and not is_whole(Path(job.run.save_weights_to)):
            missing.append(replace(job, again=True))
    needed = {job.needs for job in missing if job.needs}
    return [*(jobs[key] for key in sorted(needed) if key in jobs), *missing]


def mark_candidates(todo: Iterable[Job]) -> None:
    """Mark the models that are about to be saved only until the best of them is known.

    The mark is a file beside the model's folder, so that a command that is interrupted before it
    knows the best leaves nothing that nobody would remove. A model that is there already was saved
    on purpose and gets none.
    """
    jobs = list(todo)
    needed = {job.needs for job in jobs}
    for job in jobs:
        if job.run.save_weights_to and job.key not in needed and not _folder(job).exists():
            _folder(job).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(_mark(job), "")


def keep_all(planned: Iterable[Job]) -> None:
    """Remove the marks of candidates: their models are kept, whichever is the best."""
    for job in planned:
        if job.run.save_weights_to:
            _mark(job).unlink(missing_ok=True)


def remove_others(chosen: Iterable[Chosen], planned: Iterable[Job]) -> None:
    """Remove the candidates that were not chosen, those of earlier, interrupted commands too.

    Args:
        chosen: the runs whose models stay.
        planned: the jobs of the command; a teacher that one of them needs stays.
    """
    jobs = [job for job in planned if job.run.save_weights_to]
    kept = {each.run.key for each in chosen} | {job.needs for job in jobs}
    keep_all(job for job in jobs if job.key in kept)
    for job in jobs:
        if _mark(job).exists():
            shutil.rmtree(_folder(job), ignore_errors=True)
            _mark(job).unlink(missing_ok=True)


def _folder(job: Job) -> Path:
    return Path(str(job.run.save_weights_to))


def _mark(job: Job) -> Path:
    return _folder(job).with_name(f"{_folder(job).name}.candidate")
