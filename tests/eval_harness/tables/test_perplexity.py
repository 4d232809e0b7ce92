"""Perplexities in tables: apart from scores, pseudo ones apart from both, the lower the better."""

from dataclasses import replace

import made_results as made
import numpy as np
import pytest
from made_results import BERT, cells, note

from angels_share.cli import run_command
from angels_share.errors import UserError
from eval_harness.api import load_results
from eval_harness.commands.compare import COMMAND
from eval_harness.commands.tables import COMMAND as TABLES
from eval_harness.report.write import write_report
from eval_harness.results.predictions import ScoredDocuments, from_parquet, to_parquet
from eval_harness.results.record import from_text, to_text
from eval_harness.tables.write import write_by_name
from eval_harness.tasks.perplexity import MASKED_TOKEN, NEXT_TOKEN

GPT2 = made.model("gpt2", "77777777")
DISTILGPT2 = made.model("distilgpt2", "88888888", teacher="gpt2")


def scored(nll, splits=("validation", "test")):
    """Documents of whose ten tokens each costs this much."""
    count = len(splits)
    tens = np.full(count, 10)
    return ScoredDocuments(
        list(splits), [str(n) for n in range(count)], np.full(count, 10.0 * nll), tens,
        np.zeros(count, dtype=np.int64), tens // 2, 4 * tens,
    )  # fmt: skip


def result(model=GPT2, nll=3.0, seed=1, scoring=NEXT_TOKEN, task="wikitext-103", **row):
    values = {"context": 64, "stride": 32, "scoring": scoring, "begin_token": "<s>", "bf16": False}
    if not row.get("eval_only"):
        values |= {"learning_rate": 5e-5, "num_train_epochs": 3.0}
    given = made.settings(task, values=values, **row)
    if row.get("eval_only"):
        given.task["values"].pop("learning_rate")
        given.task["values"].pop("num_train_epochs")
    measures = scored(nll).measures(scoring)
    scores = {"validation": measures, "test": measures}
    return made.result(model, task, seed, measures["score"], scores, given)


def put(root, *results, nll=3.0):
    for each in results:
        made.put(root, each, said=scored(nll))


def test_what_is_before_and_after_stands_side_by_side(tmp_path):
    """Prevents a model that was fine-tuned on a text from being taken for one that was not."""
    put(tmp_path, result(eval_only=True))
    put(tmp_path, result(), result(seed=2))
    text = write_by_name(tmp_path)["table-perplexity"]
    grid = [line for line in text.splitlines() if line.startswith("| gpt2")]
    assert [line.split("|")[3].strip() for line in grid[:4]] == ["yes", "no", "yes", "no"]
    assert "64/32" in text
    assert "gpt2 (as it is)" in text
    assert f"{np.exp(3):.2f} ({np.exp(3):.2f} to {np.exp(3):.2f})" in text
    assert "Before a document stands" in text
    assert "table-pseudo-perplexity" not in write_by_name(tmp_path)


def test_pseudo_perplexities_are_in_no_table_of_others(tmp_path):
    """Prevents a masked model from winning against one that sees nothing of what follows."""
    put(tmp_path, result())
    put(tmp_path, result(BERT, 1.0, scoring=MASKED_TOKEN), nll=1.0)
    tables = write_by_name(tmp_path)
    assert "bert" not in tables["table-perplexity"]
    assert "gpt2" not in tables["table-pseudo-perplexity"]
    assert "Pseudo-perplexity" in tables["table-pseudo-perplexity"]
    assert note(tables["table-pseudo-perplexity"], "Pseudo-perplexity")


def test_perplexities_are_no_scores(tmp_path):
    """Prevents a perplexity in a mean of percentages, a ranking, a chart or a share."""
    put(tmp_path, result(), result(DISTILGPT2, 3.5), nll=3.0)
    loaded = load_results(tmp_path)
    assert loaded.medians().shape == (2, 0)
    assert repr(loaded).endswith("perplexities: `to_pandas()` has them")
    frame = loaded.to_pandas()
    assert sorted(frame["score"]) == pytest.approx([np.exp(3.0), np.exp(3.5)])
    assert sorted(frame["word_perplexity"]) == pytest.approx([np.exp(6.0), np.exp(7.0)])
    assert "gpt2" not in write_by_name(tmp_path)["table1"]
    for row in loaded.rows:
        assert not row.cells
    write_report(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "gpt2" in page
    assert "2008.6" not in page  # 20.086 as a percentage


def test_the_family_has_the_readmes_perplexities(tmp_path):
    """Prevents the README's numbers beside ours of an untrained model."""
    put(tmp_path, result(DISTILGPT2, 3.5), nll=3.5)
    put(tmp_path, result(DISTILGPT2, 5.0, eval_only=True), nll=5.0)
    rows = cells(write_by_name(tmp_path)["family"])
    column = "WikiText-103 test perplexity (lower is better)"
    assert rows["gpt2 (README)"][column] == "16.3"
    assert rows["distilgpt2 (README)"][column] == "21.1"
    assert rows["distilgpt2"][column] == f"{np.exp(3.5):.1f}"
    assert not any(
        cell for name, cell in rows["distilgpt2"].items() if name not in ("Model", column)
    )


@pytest.mark.parametrize("words", [[], ["--tasks", "wikitext-103"]])
def test_compare_refuses_them_in_one_line(tmp_path, words, capsys):
    """Prevents the worse model from being called the better one."""
    put(tmp_path, result(), result(DISTILGPT2, 3.5))
    asked = ["gpt2", "distilgpt2", "--results_dir", str(tmp_path), *words]
    assert run_command(COMMAND, asked) == 2
    said = capsys.readouterr().err
    assert "wikitext-103: perplexities, the lower the better, aren't compared here" in said
    assert len(said.splitlines()) == 1


def test_other_tasks_are_compared_all_the_same(tmp_path, capsys):
    """Prevents a perplexity from standing in the way of a comparison."""
    put(tmp_path, result(), result(DISTILGPT2, 3.5))
    made.put(tmp_path, *made.seeds(0.6, 0.7, of=GPT2), *made.seeds(0.5, 0.6, of=DISTILGPT2))
    names = [row.short for row in load_results(tmp_path).rows]
    rows = [name for name in names if "RTE" in name or name in ("gpt2", "distilgpt2")]
    assert run_command(COMMAND, [*rows, "--results_dir", str(tmp_path)]) == 0
    assert "RTE" in capsys.readouterr().out


def test_verify_computes_them_again(tmp_path, capsys):
    """Prevents a perplexity that its documents contradict."""
    put(tmp_path, result())
    words = ["--verify", "--results_dir", str(tmp_path)]
    assert run_command(TABLES, words) == 0
    assert "verified: 1 of 1" in capsys.readouterr().out
    (path,) = (tmp_path / "runs").rglob("seed-1.json")

    def better(record):
        scores = record["scores"]["test"]
        return {**record, "scores": {**record["scores"], "test": {**scores, "bits_per_byte": 0.9}}}

    made.rewrite(path, better)
    assert run_command(TABLES, words) == 1
    assert "scores.test.bits_per_byte is 0.9" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("scores", "fault"),
    [
        ({"token_perplexity": -1.0, "score": 3.0}, "is no perplexity"),
        ({"accuracy": 3.0, "score": 3.0}, "is not between -1 and 1"),
    ],
)
def test_only_perplexities_are_above_one(scores, fault):
    """Prevents percentages that pass for shares, and perplexities that can't be."""
    made_up = made.result(GPT2, score=scores["score"], scores={"validation": scores})
    text = to_text(replace(made_up, predictions={"name": "a", "size": 1, "sha256": "b"}))
    with pytest.raises(ValueError, match=fault):
        from_text(text.encode())


def test_predictions_travel():
    """Prevents documents that come back with another's numbers."""
    sent = scored(2.0)
    found = from_parquet(to_parquet(sent))
    assert isinstance(found, ScoredDocuments)
    assert found.measures(NEXT_TOKEN) == sent.measures(NEXT_TOKEN)
    only = found.measures(NEXT_TOKEN, np.array([True, False]))
    assert only["score"] == pytest.approx(np.exp(2.0))
    sent.nll[1] = np.nan
    assert sent.fault() == "predictions of '1'"


def test_infinite_perplexities_are_none():
    """Prevents a file that JSON can't hold."""
    found = scored(800.0).measures(NEXT_TOKEN)
    assert found["token_perplexity"] is None
    assert found["bits_per_byte"] == pytest.approx(800 / np.log(2) / 4)


def test_comparing_in_python(tmp_path):
    """Prevents the same mistake from a notebook."""
    from eval_harness.api import compare

    put(tmp_path, result(), result(DISTILGPT2, 3.5))
    loaded = load_results(tmp_path)
    with pytest.raises(UserError, match="aren't compared here"):
        compare(loaded["gpt2"], loaded["distilgpt2"])
