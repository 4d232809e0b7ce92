"""Which seed's model is kept: the one nearest the median, the lower of two."""

import pytest
from made_results import model, result, scoring, settings

from angels_share.sealed_folder import seal
from eval_harness.results.store import publish
from eval_harness.runs.run import Run
from eval_harness.sweep.chosen import (
    jobs_for_models,
    keep_all,
    mark_candidates,
    nearest_to_median,
    remove_others,
)
from eval_harness.sweep.queue import Job
from eval_harness.tasks.lookup import task_named


def runs_scoring(root, *scores, **where):
    """Save results of seeds 1, 2, … and return their runs, whose models would be saved."""
    found = []
    for seed, score in enumerate(scores, 1):
        made = result(seed=seed, score=score)
        publish(root, made, scoring(score or 0.5))
        run = Run(model(), task_named("rte"), seed, settings("rte"))
        assert run.key == made.key
        found.append(Run(**{**vars(run), "save_weights_to": str(root / "models" / run.key)}))
    return found


@pytest.mark.parametrize(
    ("scores", "seed"),
    [
        ((0.5, 0.7, 0.6), 3),
        ((0.5, 0.7, 0.6, 0.8), 3),  # .6 and .7 are as near: the lower one
        ((0.6, 0.6, 0.6), 1),
        ((0.5,), 1),
        ((0.1, 0.2, 0.9), 2),  # the median, not the mean
        ((None, 0.5, 0.7, 0.6), 4),
    ],
)
def test_the_seed_nearest_the_median(scores, seed, tmp_path):
    """Prevents the luckiest seed, or an undefined score, from standing for a model."""
    (chosen,) = nearest_to_median(tmp_path, runs_scoring(tmp_path, *scores))
    assert chosen.run.seed == seed
    assert chosen.seeds == len([score for score in scores if score is not None])


def test_nothing_stands_for_undefined_scores(tmp_path):
    """Prevents a traceback where a correlation is undefined for every seed."""
    assert nearest_to_median(tmp_path, runs_scoring(tmp_path, None, None)) == []


def test_a_model_that_was_not_saved_is_made_with_its_teacher(tmp_path):
    """Prevents an older result from having no model, and others from being made again for it."""
    runs = runs_scoring(tmp_path, 0.5, 0.7, 0.6)
    teacher = Run(model("bert", "99999999"), task_named("rte"), 1, settings("rte"))
    planned = [Job(teacher), *(Job(run, needs=teacher.key) for run in runs)]
    chosen = nearest_to_median(tmp_path, runs)
    jobs = jobs_for_models(chosen, planned)
    assert [(job.key, job.again) for job in jobs] == [(teacher.key, False), (runs[2].key, True)]
    saved(tmp_path, runs[2])
    assert jobs_for_models(chosen, planned) == []


def saved(root, run):
    folder = root / "models" / run.key
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    seal(folder)
    return folder


def test_only_what_was_saved_on_the_way_is_removed(tmp_path):
    """Prevents models that somebody kept on purpose, or a teacher, from disappearing."""
    runs = runs_scoring(tmp_path, 0.5, 0.7, 0.6, 0.4)
    planned = [Job(run) for run in runs] + [Job(runs[2], needs=runs[3].key)]
    first = saved(tmp_path, runs[0])  # there before: its seed gets no mark
    mark_candidates(planned)
    folders = [first, *(saved(tmp_path, run) for run in runs[1:])]
    chosen = nearest_to_median(tmp_path, runs)
    remove_others(chosen, planned)
    kept = {chosen[0].run.seed, 1, 4}  # seed 1 was there before, seed 4 is a teacher
    assert {number for number, folder in enumerate(folders, 1) if folder.exists()} == kept
    assert not list(tmp_path.rglob("*.candidate"))


def test_what_is_kept_on_purpose_is_a_candidate_no_more(tmp_path):
    """Prevents `best` from removing what `all` was told to keep after an interruption."""
    runs = runs_scoring(tmp_path, 0.5, 0.7, 0.6)
    planned = [Job(run) for run in runs]
    mark_candidates(planned)
    folders = [saved(tmp_path, run) for run in runs]
    keep_all(planned)
    remove_others(nearest_to_median(tmp_path, runs), planned)
    assert all(folder.exists() for folder in folders)
