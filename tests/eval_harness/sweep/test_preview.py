"""What a sweep would do, in numbers that are measured or said to be unknown."""

import dataclasses

import pytest
import worlds

from angels_share.flags import parse
from eval_harness.commands import glue
from eval_harness.results.store import publish
from eval_harness.runs.run import Run
from eval_harness.sweep.local_workers import LocalWorkers
from eval_harness.sweep.plan import jobs, plan
from eval_harness.sweep.preview import duration, lines_of, parts_of, steps_of
from eval_harness.training.runner import run_task


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return worlds.make(tmp_path_factory.mktemp("world"))


def planned(world, root, *words):
    argv = [
        "--model", str(world / "distilbert"), "--data_dir", str(world / "glue"), "--tasks", "rte",
        "--results_dir", str(root), "--learning_rate", "3e-3", "--num_train_epochs", "2",
        "--per_device_train_batch_size", "8", "--max_seq_length", "32", "--num_seeds", "4", *words,
    ]  # fmt: skip
    return plan(glue.experiment(parse(glue.COMMAND.flags, argv, takes_training_flags=True)))


def workers_for(made, **given):
    return LocalWorkers(made.root, "", devices=[], **({"threads": 1} | given))


def previewed(made, todo=None, **workers):
    wanted = list(jobs(made))
    who = workers_for(made, **workers)
    return parts_of(made, wanted, wanted if todo is None else todo, who), who


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"num_train_epochs": 1.5},
        {"per_device_train_batch_size": 5, "gradient_accumulation_steps": 3},
        {"per_device_train_batch_size": 7, "dataloader_drop_last": True},
        {"per_device_train_batch_size": 64, "dataloader_drop_last": False},
        {"max_steps": 3},
    ],
)
def test_steps_are_those_that_the_trainer_makes(world, given):
    """Prevents a preview that promises other steps than are made."""
    run = worlds.run_on(world / "glue", world / "distilbert", given=given)
    reported = []
    run_task(run, reported.append)
    assert steps_of(run.settings.task["values"], 48) == len(reported)


def save(made, seconds, seed=1, *, threads=1, **stages):
    """Save a result of a seed that took so many seconds; nothing but times is made up."""
    run = next(job.run for job in jobs(made) if job.run.seed == seed)
    result, predictions = run_task(run, lambda share: None)
    times = {"prepare": 1.0, "train": seconds - 2.0, "evaluate": 1.0, "total": seconds} | stages
    where = result.provenance | {"threads": threads}
    publish(made.root, dataclasses.replace(result, times=times, provenance=where), predictions)
    return run


def test_times_are_those_of_earlier_results(world, tmp_path):
    """Prevents an invented time, and one of another machine, method or number of threads."""
    made = planned(world, tmp_path)
    ((part,), who) = previewed(made)
    assert (part.runs, part.have, part.missing, part.seconds, part.earlier) == (4, 0, 4, None, 0)
    assert "time unknown: no earlier results" in lines_of(made, [part], who)[1]

    save(made, 100.0, threads=2)
    assert previewed(made)[0][0].seconds is None
    assert previewed(made, threads=2)[0][0].seconds == 100.0

    save(made, 40.0, seed=2)
    save(made, 60.0, seed=3)
    todo = [job for job in jobs(made) if job.run.seed == 4]
    ((part,), who) = previewed(made, todo)
    assert (part.have, part.missing, part.seconds, part.earlier) == (3, 1, 50.0, 2)
    assert lines_of(made, [part], who) == [
        "4 runs (1 model x 1 task x 4 seeds): 3 with results, 1 to do",
        "96 training examples in all, epochs counted; about 50 s (from 2 earlier results)",
        f"1 worker with 1 thread; results go to {tmp_path}; Ctrl-C is safe: the same command "
        "continues",
    ]


def test_other_settings_are_scaled_by_what_is_read(world, tmp_path):
    """Prevents the time of two epochs from standing for that of four."""
    save(planned(world, tmp_path), 100.0, prepare=10.0, train=80.0, evaluate=8.0)
    ((part,), _) = previewed(planned(world, tmp_path, "--num_train_epochs", "4"))
    before, after = 2 * 48 + 24 / 3, 4 * 48 + 24 / 3
    assert part.seconds == pytest.approx(10.0 + 88.0 * after / before)
    ((part,), _) = previewed(planned(world, tmp_path, "--learning_rate", "1e-3"))
    assert part.seconds == pytest.approx(98.0)


def test_workers_share_the_time(world, tmp_path):
    """Prevents a time for one worker where two work, and a share for one that has no run."""
    made = planned(world, tmp_path)
    save(made, 100.0)
    todo = [job for job in jobs(made) if job.run.seed > 1]
    ((part,), who) = previewed(made, todo, workers=2)
    assert "about 2 min (from 1 earlier result)" in lines_of(made, [part], who)[1]
    assert lines_of(made, [part], who)[2].startswith("2 workers with 1 thread each;")
    ((part,), who) = previewed(made, todo[:1], workers=2)
    assert "about 2 min (from" in lines_of(made, [part], who)[1]
    assert lines_of(made, [part], who)[2].startswith("1 worker with 1 thread;")


def test_a_teacher_is_a_part_of_its_own(world, tmp_path):
    """Prevents runs that are in no product of models, tasks and seeds from going unmentioned."""
    made = planned(world, tmp_path, "--teacher", str(world / "bert"))
    parts, who = previewed(made)
    assert [(part.label, part.runs) for part in parts] == [
        ("bert (teacher)", 1), ("distilbert (D)", 4),
    ]  # fmt: skip
    assert (
        "5 runs (1 model x 1 task x 4 seeds, and 1 of the teacher)" in lines_of(made, parts, who)[0]
    )


def test_a_damaged_result_is_no_earlier_one(world, tmp_path):
    """Prevents a file that doesn't count from failing the preview."""
    made = planned(world, tmp_path)
    run = save(made, 50.0)
    path = made.root / "runs" / f"{run.key}.json"
    path.write_text(path.read_text()[:100])
    ((part,), _) = previewed(made)
    assert (part.have, part.seconds) == (0, None)
    assert isinstance(run, Run)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "1 s"), (59.4, "59 s"), (60, "1 min"), (7800, "2 h 10 min"), (90000, "1.0 days")],
)
def test_durations_are_words(seconds, said):
    """Prevents "7800 s", and a time of nothing."""
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("made_on", "counts"),
    [
        ({}, True),
        ({"device": "NVIDIA H100"}, False),
        ({"machine": {"processor": "another"}}, False),
        ({"machine": "nothing that is known"}, False),
    ],
)
def test_a_result_of_another_machine_says_nothing_of_this_one(world, tmp_path, made_on, counts):
    """Prevents minutes promised on a laptop that a GPU elsewhere took."""
    made = planned(world, tmp_path)
    run = next(jobs(made)).run
    result, predictions = run_task(run, lambda share: None)
    where = result.provenance | {"threads": 1} | made_on
    publish(tmp_path, dataclasses.replace(result, provenance=where), predictions)
    assert (previewed(made)[0][0].seconds is not None) is counts
    gpus = LocalWorkers(tmp_path, "", devices=["0"])
    (part,) = parts_of(made, list(jobs(made)), [], gpus)
    assert (part.seconds is not None) is ("device" in made_on)
