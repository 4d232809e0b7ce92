"""XNLI: one training split, and the languages that a folder or the Hub has."""

import json

import pytest
import tasks_on_disk

from angels_share.errors import UserError
from eval_harness.data.splits import load_task
from eval_harness.tasks.lookup import task_named

XNLI = task_named("xnli")


def write(path, count, name):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"premise": f"{name} {n}", "hypothesis": "so", "label": XNLI.labels[n % 3]}
        for n in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))


def folder(path, languages=("en", "de", "ur"), train="en/train.jsonl"):
    for language in languages:
        write(path / "xnli" / language / "test.jsonl", 6, language)
    if train:
        write(path / "xnli" / train, 9, "train")
    return path


@pytest.mark.parametrize("train", ["en/train.jsonl", "train.jsonl"])
def test_the_languages_that_are_there_are_judged(tmp_path, train):
    """Prevents a lacking language from stopping the others, or one language's rows from being
    another's."""
    data = load_task(XNLI, folder(tmp_path, train=train))
    assert [split.name for split in data.evaluation] == ["test.en", "test.de", "test.ur"]
    assert [split.texts[0][0] for split in data.evaluation] == ["en 0", "de 0", "ur 0"]
    assert data.train.texts[0][0] == "train 0"
    assert [len(split) for split in load_task(XNLI, tmp_path, limit=2).evaluation] == [2, 2, 2]


def test_another_choice_of_languages_is_another_key(tmp_path):
    """Prevents a mean of two languages from passing for one of three."""
    three = load_task(XNLI, folder(tmp_path / "a")).content
    two = load_task(XNLI, folder(tmp_path / "b", languages=("en", "de"))).content
    assert three != two


def test_mnlis_training_files_do(tmp_path):
    """Prevents a second copy of MNLI from being asked for: XNLI's English pairs are MNLI's."""
    folder(tmp_path, train=None)
    with pytest.raises(UserError, match="MNLI's would do, but isn't there"):
        load_task(XNLI, tmp_path)
    tasks_on_disk.as_glue(tmp_path, task_named("mnli"))
    data = load_task(XNLI, tmp_path)
    assert data.train.texts == load_task(task_named("mnli"), tmp_path).train.texts
    assert data.source == "MNLI"


def test_nothing_to_judge_is_said(tmp_path):
    """Prevents a mean over no language."""
    folder(tmp_path, languages=())
    with pytest.raises(UserError, match=r"nothing to judge XNLI on; looked for .*xnli/en/test"):
        load_task(XNLI, tmp_path)


def test_translate_train_is_another_task(tmp_path):
    """Prevents a model that saw German from standing among those that didn't."""
    folder(tmp_path)
    write(tmp_path / "xnli" / "de" / "train.jsonl", 5, "deutsch")
    task = task_named("xnli-translate-train-de")
    data = load_task(task, tmp_path)
    assert data.train.texts[0][0] == "deutsch 0"
    assert [split.texts[0][0] for split in data.evaluation] == ["de 0"]
    assert load_task(XNLI, tmp_path).train.texts[0][0] == "train 0"


def test_the_score_is_the_mean_of_the_languages():
    """Prevents English alone, the best of them, from being the score."""
    scores = {"test.en": {"score": 0.8}, "test.de": {"score": 0.5}}
    assert XNLI.score_of(scores) == pytest.approx(0.65)
    assert XNLI.score_of({**scores, "test.ur": {"score": None}}) is None
    assert task_named("mnli").score_of(scores) == 0.8
