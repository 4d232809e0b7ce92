"""The sweep and the tables agree: what tables name "not counted" the next sweep runs again."""

import json

import made_results as made
import pytest
from sweeps import (
    quick,  # noqa: F401  (for all)
    seeds,
    sweep,
)
from work_for_sweeps import job, result_of

from angels_share.errors import UserError
from eval_harness.results.store import find, load, path_of, publish, withhold
from eval_harness.results.verify import agreeing


def contradict(file):
    copy = file.with_name("seed-1 (copy).json")
    copy.write_text(file.read_text())
    made.rewrite(copy, lambda record: {**record, "score": 0.25})


def flip(file):
    predictions = file.with_name(load(file).predictions["name"])
    data = bytearray(predictions.read_bytes())
    data[len(data) // 2] ^= 1
    predictions.write_bytes(data)


def replace_by_a_link(file):
    outside = file.parents[4] / "elsewhere.json"
    file.rename(outside)
    file.symlink_to(outside)


DOUBTS = {
    "altered": (
        lambda file: file.write_text(file.read_text().replace("0.5", "0.9")),
        "was altered after it was saved",
    ),
    "contradicted": (contradict, "is contradicted by another file"),
    "disproved": (
        lambda file: made.rewrite(file, lambda record: {**record, "score": 0.9}),
        "score 0.9 is not the score of validation",
    ),
    "flipped": (flip, "sha256 differs"),
    "a link": (replace_by_a_link, "is a link, which is not followed"),
}


@pytest.mark.parametrize("how", DOUBTS)
def test_what_tables_do_not_count_is_run_again(tmp_path, capsys, how):
    """Prevents a hole in a table that no sweep ever fills, since the sweep sees a result there."""
    jobs = [job("rte", seed) for seed in (1, 2)]
    for each in jobs:
        publish(tmp_path, *result_of(each.run))
    doubt, reason = DOUBTS[how]
    file = path_of(tmp_path, jobs[0].key)
    doubt(file)
    assert jobs[0].key not in agreeing(tmp_path, find(tmp_path)).by_key
    assert seeds(sweep(tmp_path, jobs, rerun="never").missing) == [1]
    capsys.readouterr()
    outcome = sweep(tmp_path, jobs)
    assert (seeds(outcome.done), seeds(outcome.skipped)) == ([1], [2])
    said = capsys.readouterr().err
    assert f"{file}: " in said
    assert reason in said
    assert "; the run is repeated" in said
    assert agreeing(tmp_path, find(tmp_path)).by_key.keys() == {each.key for each in jobs}
    assert seeds(sweep(tmp_path, jobs).skipped) == [1, 2]


def test_an_unsealed_score_that_was_edited_is_run_again(tmp_path):
    """Prevents results of before there were seals from being beyond any proof."""
    one = job("rte", 1)
    publish(tmp_path, *result_of(one.run))
    file = path_of(tmp_path, one.key)

    def edit(score):
        record = made.unsealed(json.loads(file.read_text()))
        file.write_text(json.dumps({**record, "score": score}))

    edit(0.5)
    assert seeds(sweep(tmp_path, [one]).skipped) == [1]
    edit(0.9)
    assert seeds(sweep(tmp_path, [one]).done) == [1]
    assert load(file).score == 0.5


def test_withheld_predictions_count(tmp_path):
    """Prevents a result from being made again because its predictions were not published."""
    one = job("rte", 1)
    publish(tmp_path, *result_of(one.run))
    withhold(tmp_path, load(path_of(tmp_path, one.key)))
    assert seeds(sweep(tmp_path, [one]).skipped) == [1]


def test_a_linked_folder_is_refused(tmp_path):
    """Prevents hours of runs whose results no table will ever read."""
    one = job("rte", 1)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs").mkdir()
    link = tmp_path / "runs" / one.run.model.key
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=f"{link.name}: is a link, which is not followed: replace"):
        sweep(tmp_path, [one])
    link.unlink()
    (tmp_path / "runs").rmdir()
    (tmp_path / "runs").symlink_to(tmp_path / "elsewhere")  # as a whole it is read
    assert seeds(sweep(tmp_path, [one]).done) == [1]
    assert len(find(tmp_path).results) == 1
