"""The harness from Python: what a script and a notebook call."""

import json
import subprocess
import sys

import made_results as made
import numpy as np
import pytest
import worlds

from eval_harness import api
from eval_harness.api import (
    RunFailed,
    UserError,
    compare,
    custom_task,
    evaluate,
    load_results,
    tables,
)
from eval_harness.commands import carry_out
from eval_harness.sweep.scheduler import Failure, Outcome

# No `if __name__ == "__main__":` on purpose: the workers must not run the script again.
SCRIPT = """
import json, sys
from pathlib import Path
from eval_harness.api import custom_task, evaluate

world, results = map(Path, sys.argv[1:])
print("once", file=sys.stderr)
stars = custom_task(
    "stars", columns=["review"], labels=["bad", "good"], primary=["accuracy"],
    files={"train": world / "stars.csv", "validation": world / "stars.csv"},
)
small = dict(
    learning_rate=3e-3, num_train_epochs=1, per_device_train_batch_size=8, max_seq_length=24,
)
found = evaluate(
    world / "distilbert", ["rte", stars, "squad"], seeds=[7, 3], results_dir=results,
    data_dir=world / "glue", train_file=world / "squad/train.json",
    validation_file=world / "squad/dev.json", doc_stride=4, max_query_length=8, workers=1,
    save_models="best", **small,
)
models = {key: str(folder) for key, folder in found.saved_models().items()}
print(json.dumps({"keys": sorted(result.key for result in found), "models": models}))
"""


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A script that evaluates a model on three kinds of tasks: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("api")
    world = worlds.make(folder / "world")
    rows = [f"the old river {number},good\nthe dark,bad" for number in range(12)]
    (world / "stars.csv").write_text("\n".join(["review,label", *rows, ""]))
    (folder / "script.py").write_text(SCRIPT)
    words = [sys.executable, "script.py", str(world), str(folder / "results")]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_a_script_needs_no_main_guard(evaluated):
    """Prevents the script from being run again by every worker, or from failing for want of one."""
    folder, done = evaluated
    assert done.stderr.splitlines().count("once") == 1
    printed = json.loads(done.stdout.splitlines()[-1])
    tasks = sorted(key.split("/")[1] for key in printed["keys"])
    assert tasks == ["rte"] * 2 + ["squad"] * 2 + ["stars"] * 2
    assert {key.rpartition("-")[2] for key in printed["keys"]} == {"3", "7"}
    assert {result.key for result in load_results(folder / "results")} == set(printed["keys"])


def test_saved_models_are_found_by_their_results(evaluated):
    """Prevents a fine-tuned model that is saved where nobody looks, or several of one task."""
    folder, done = evaluated
    models = json.loads(done.stdout.splitlines()[-1])["models"]
    assert sorted(key.split("/")[1] for key in models) == ["rte", "squad", "stars"]
    for place in models.values():
        assert (folder / place / "model.safetensors").is_file()
        assert (folder / place / "README.md").is_file()
    assert load_results(folder / "results").saved_models().keys() == models.keys()


def test_results_are_those_of_the_command_line(evaluated, tmp_path):
    """Prevents a keyword from being another setting than the flag of its name."""
    folder, _ = evaluated
    world, root = folder / "world", folder / "results"
    found = evaluate(
        str(world / "distilbert"), "rte", seeds=[3], results_dir=root, data_dir=world / "glue",
        learning_rate=3e-3, num_train_epochs=1, per_device_train_batch_size=8, max_seq_length=24,
        rerun="never",
    )  # fmt: skip
    assert len(found) == 1  # it was there, under the same key
    words = [
        sys.executable, "-m", "eval_harness", "tables", "--results_dir", str(root), "--verify",
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "6 of 6 results agree" in done.stdout, done.stdout + done.stderr


def test_a_data_frame_has_a_line_per_run(evaluated):
    """Prevents runs that are listed twice, since a task may have two cells, or in other units."""
    results = load_results(evaluated[0] / "results")
    frame = results.to_pandas()
    assert len(frame) == len(results) == 6
    assert frame.columns[:5].tolist() == ["row", "model", "task", "seed", "score"]
    by_key = {result.key: result for result in results}
    for line in frame.itertuples():
        result = by_key[line.key]
        assert line.score == pytest.approx(100 * result.score)
        if line.task == "squad":
            exact = result.scores["validation"]["exact_match"]
            assert line.exact_match == pytest.approx(100 * exact)
        assert (line.seed, line.task) == (result.seed, result.task)
    assert load_results_of_nothing(evaluated[0]).to_pandas().empty


def load_results_of_nothing(folder):
    (folder / "empty").mkdir(exist_ok=True)
    return load_results(folder / "empty")


def test_medians_are_the_tables(tmp_path):
    """Prevents another number in a notebook than in the table, or a mean over fewer tasks."""
    results = some(tmp_path)
    for result in made.seeds(0.4, 0.6, of=made.BERT, task="qnli"):
        made.put(tmp_path, result, said=made.scoring(result.score))
    results = load_results(tmp_path)
    medians = results.medians()
    assert medians.loc["bert"].to_dict() == pytest.approx({"QNLI": 50, "RTE": 60, "mean": 55})
    assert medians.loc["distilbert", "RTE"] == pytest.approx(90)
    assert medians.loc["distilbert", ["QNLI", "mean"]].isna().all()
    assert repr(results).startswith(f"Results: 8 runs in {tmp_path}; medians in percent:")
    assert "55.0" in repr(results)
    assert "<table" in results._repr_html_()


def some(tmp_path):
    for model, scores in ((made.BERT, (0.5, 0.6, 0.7)), (made.STUDENT, (0.8, 0.9, 0.9))):
        for result in made.seeds(*scores, of=model):
            made.put(tmp_path, result, said=made.scoring(result.score))
    return load_results(tmp_path)


def test_a_row_is_taken_by_its_name(tmp_path):
    """Prevents the results of one model from holding another's."""
    results = some(tmp_path)
    bert = results["bert-base-uncased"]
    assert {result.model.name for result in bert} == {"bert"}
    assert len(bert) == 3
    with pytest.raises(UserError, match="did you mean 'bert'"):
        results["brt"]


def test_two_models_are_compared(tmp_path):
    """Prevents a comparison that disagrees with the command's, or of rows that nobody chose."""
    results = some(tmp_path)
    found = compare(results["bert"], results["distilbert"])
    (line,) = found.to_pandas().to_dict("records")
    assert (line["median_of_first"], line["median"]) == pytest.approx((60, 90))
    assert line["difference"] == pytest.approx(100 * (2.6 / 3 - 0.6))
    assert "distilbert vs bert" in repr(found)
    assert found._repr_markdown_() == repr(found)
    with pytest.raises(
        UserError, match=r'of one row each, not of 2: choose one.*results\["bert"\]'
    ):
        compare(results, results["bert"])


def test_two_settings_of_a_model_are_compared_with_each_other(tmp_path):
    """Prevents `results[label]` of two rows of one model from being the same row."""
    for rate, scores in ((1e-4, (0.5, 0.5, 0.6)), (1e-5, (0.8, 0.8, 0.9))):
        given = made.settings("rte", overrides={"learning_rate": rate})
        for result in made.seeds(*scores, given=given):
            made.put(tmp_path, result, said=made.scoring(result.score))
    results = load_results(tmp_path)
    a, b = (results[label] for label in results.labels)
    assert [a.labels, b.labels] == [[label] for label in results.labels]
    frame = compare(a, b).to_pandas()
    assert abs(frame.loc[0, "difference"]) == pytest.approx(30)


def test_what_numpy_made_is_taken_as_what_it_is():
    """Prevents seeds of an array, or a limit from a computation, from being refused."""
    assert api._plain(np.int64(8)) == 8
    assert type(api._plain(np.int64(8))) is int
    assert api._seeds(np.arange(1, 3)) == {"seeds": [1, 2]}
    assert api._seeds(range(2)) == {"seeds": [0, 1]}
    assert api._seeds(np.int64(2)) == {"num_seeds": 2}


def test_names_in_place_of_results_are_one_line(tmp_path):
    """Prevents an AttributeError where a newcomer gives names; and tasks that are given as one."""
    results = some(tmp_path)
    with pytest.raises(UserError, match="compare takes results"):
        compare("bert", "distilbert")
    one = compare(results["bert"], results["distilbert"], tasks="rte")
    assert one.tasks == ("rte",)
    with pytest.raises(UserError, match="name one or more"):
        compare(results["bert"], results["distilbert"], tasks=[])


def test_tables_are_texts_by_name(tmp_path):
    """Prevents tables from Python that lack a row, or files that nobody asked for."""
    results = some(tmp_path)
    found = tables(results["distilbert"])
    assert "distilbert" in made.cells(found["table1"])
    assert "bert" not in made.cells(found["table1"])
    assert not list(tmp_path.glob("*.md"))
    assert json.loads(tables(results, "json")["table1"])
    with pytest.raises(UserError, match="form 'markdwon'"):
        tables(results, "markdwon")


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"learning_rat": 1}, "unknown keyword 'learning_rat'"),
        ({"learning_rate": "fast"}, "learning_rate: 'fast' is a string, expected a number"),
        ({"num_seeds": 2}, "num_seeds: use seeds"),
        ({"tasks": "squad"}, "data_dir is not accepted: use train_file and validation_file"),
        ({"push_to_hub": True}, "push afterwards"),
        ({"temperature": 3.0}, "temperature needs a teacher"),
        ({"transfer_set": "x.txt"}, "transfer_set needs teacher: unlabelled text has only a teach"),
        ({"transfer_set": ["x.txt"], "teacher": "t", "alpha_ce": 0}, "alpha_ce 0 switches off"),
        ({"tasks": "squad", "data_dir": None, "transfer_set": "x"}, "transfer_set is not accepted"),
        ({"train_file": "x.json"}, "train_file is not accepted: use data_dir"),
        ({"output_dir": "x"}, "output_dir is not accepted: use results_dir"),
        ({"tasks": "ret"}, "unknown task 'ret'; did you mean 'rte'"),
        ({"tasks": []}, "name one or more"),
        ({"seeds": 0}, "num_seeds 0: must be above 0"),
        ({"seeds": [True]}, "seeds True: expected int"),
        ({"seeds": []}, "seeds is empty"),
        ({"seeds": None}, "num_seeds: None is null"),
        # Of two commands' tasks, the second one's input is bad: nothing of the first is run.
        ({"tasks": ["rte", "squad"], "train_file": "x.json"}, "train_file x.json: no such file"),
        ({"data_dir": ""}, "data_dir is empty"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_before_any_work(tmp_path, monkeypatch, keywords, said):
    """Prevents a keyword that is ignored, and an error in a command line's words."""
    monkeypatch.setattr(api, "carry_out", lambda *_: pytest.fail("it was run"))
    worlds.make(tmp_path)
    given = {"tasks": "rte", "data_dir": tmp_path / "glue", "results_dir": tmp_path / "r"}
    with pytest.raises(UserError, match=said) as caught:
        evaluate(tmp_path / "distilbert", **{**given, **keywords})
    assert "\n" not in str(caught.value)
    assert "--" not in str(caught.value)


def test_a_failed_run_is_an_exception(tmp_path, monkeypatch):
    """Prevents a script from going on with fewer results than it asked for."""

    def carried(planned, _options, _tables):
        run = next(iter(carry_out.jobs(planned))).run
        return carry_out.Carried(Outcome(failed=(Failure(run, "no memory"),)), ())

    monkeypatch.setattr(api, "carry_out", carried)
    worlds.make(tmp_path)
    with pytest.raises(RunFailed, match="no memory"):
        evaluate(
            tmp_path / "distilbert", "rte", seeds=1, data_dir=tmp_path / "glue",
            results_dir=tmp_path / "r",
        )  # fmt: skip


def test_a_custom_task_is_checked_like_a_file(tmp_path):
    """Prevents a custom task from Python that a YAML file could not be."""
    task = custom_task(
        "stars", title="Stars", columns=("review",), labels=("bad", "good"), primary=("f1",),
        files={"train": tmp_path / "a.csv", "validation": "b.csv"},
    )  # fmt: skip
    assert task.columns == ("review",)
    assert task.title == "Stars"
    with pytest.raises(UserError, match="task stars: primary: 'f2' is not a metric"):
        custom_task("stars", columns=["x"], labels=["a", "b"], primary=["f2"], hub="a/b")
    with pytest.raises(UserError, match="task stars: unknown key 'titel'; did you mean 'title'"):
        custom_task("stars", columns=["x"], labels=["a", "b"], primary=["f1"], hub="a/b", titel="x")


def test_two_tasks_of_one_name_are_refused(tmp_path):
    """Prevents two tasks' results from lying in one folder."""
    first, second = (
        custom_task("stars", columns=["x"], labels=[*labels], primary=["f1"], hub="a/b")
        for labels in ("ab", "cd")
    )
    with pytest.raises(UserError, match="two tasks are called 'stars'"):
        evaluate("distilbert", [first, second], results_dir=tmp_path)


def test_no_folder_is_one_line(tmp_path):
    """Prevents an empty result where the folder's name is mistyped."""
    with pytest.raises(UserError, match="not a folder"):
        load_results(tmp_path / "nowhere")
