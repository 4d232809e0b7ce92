"""Results as facts for a card: what the tables print, and nothing besides."""

import json
import shutil
from dataclasses import replace

import made_results as made
import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from made_report import session
from made_results import BERT, HUB, STUDENT, cells, distilled_from, scoring, seeds, settings
from places import ROOT

from angels_share.card.render import CardFacts, CardShape, render
from angels_share.errors import UserError
from eval_harness.publish.card_results import card_results, run_of
from eval_harness.results.speed import write_session
from eval_harness.results.store import find, path_of, withhold
from eval_harness.tables.write import write_tables

TEACHER = replace(BERT, revision="86b5e0934494bd15c9632b12f734a8a67f723594")
RTE = {"source": "hub:nyu-mll/glue/rte", "revision": HUB["revision"], "overlap": 0,
       "content": f"{'rte':0<16}", "examples": {"train": 2490, "validation": 100}}  # fmt: skip


@pytest.fixture
def root(tmp_path):
    return tmp_path / "results"


def put(root, *scores, of=STUDENT, **more):
    """Save RTE results with these accuracies, and predictions that have them."""
    for seed, score in enumerate(scores, 1):
        more = {"data": RTE, **more}
        (result,) = seeds(score, of=of, first=seed, **more)
        made.put(root, result, said=scoring(score))


def on(task, scores, split="validation", **more):
    """Return one result of a task with these metrics."""
    (result,) = seeds(scores["score"], task=task, **more)
    return replace(result, scores={split: scores})


def key_of(root, seed, of=STUDENT):
    (key,) = [
        key for key in find(root).by_key if key.startswith(of.key) and key.endswith(f"-{seed}")
    ]
    return key


def printed(measured):
    return {(each.data.title, each.data.split, each.title): each.text
            for row in measured.rows for each in row.results}  # fmt: skip


def card_of(measured, head="DistilBertForSequenceClassification", task="rte"):
    return render(CardFacts("someone/small", CardShape(head, task), measured=measured))


def test_median_spread_and_share_are_the_tables(root):
    """Prevents a card that was computed in a second way, and one day says something else."""
    put(root, 0.68, 0.70, 0.66, 0.69, 0.71, of=TEACHER)
    put(root, 0.59, 0.61, 0.57, 0.60, asked=[1, 2, 3, 4, 5])
    (row,) = card_results(root, "distilbert").rows
    table = cells(write_tables(root)[0])["distilbert"]
    (result,) = row.results
    assert (result.text, result.count) == (table["RTE"], table["n"]) == (
        "59.5 (57.0 to 61.0; 4/5)", "4/5")  # fmt: skip
    assert row.retained.text == table["Retained"]
    assert row.retained.tasks == {"RTE": "69.0 (66.0 to 71.0; 5/5)"}
    assert (row.retained.hub, row.retained.revision) == (TEACHER.source, TEACHER.revision)
    assert (result.median, result.highest, result.seeds) == (59.5, 61.0, 4)
    assert result.here is None


def test_a_score_comes_with_all_that_it_depends_on(root):
    """Prevents a score whose data, code or machine nobody can find again."""
    put(root, 0.6, provenance={**made.PROVENANCE, "commit": "3ddf84a0c1b2", "machine":
        {"processor": "AMD EPYC"}})  # fmt: skip
    measured = card_results(root, STUDENT.key)
    (row,) = measured.rows
    data = row.results[0].data
    assert (data.hub, data.config, data.split) == ("nyu-mll/glue", "rte", "validation")
    assert (data.revision, data.examples, data.elsewhere) == (HUB["revision"], 100, "")
    assert row.code == ("0.1.0 (commit 3ddf84a0c1b2)",)
    assert row.libraries == {"torch": "2.13.0", "transformers": "5.23.0"}
    assert row.machines == ("cpu, 2 CPU threads, AMD EPYC",)
    assert row.notes[0].startswith("Hyper-parameters")
    assert measured.citations.keys() == {"RTE"}


def test_the_hub_gets_the_numbers_of_the_files(root):
    """Prevents metadata with another number than the result files have."""
    put(root, 0.59, 0.61, 0.57, 0.60, 0.63)
    measured = card_results(root, "distilbert", run=key_of(root, 2))
    data = ModelCard(card_of(measured)).data
    _, (median, here) = model_index_to_eval_results(data.to_dict()["model-index"])
    scores = sorted(result.score for result in find(root).results)
    assert (median.metric_value, here.metric_value) == (scores[2], 0.61)
    assert median.dataset_revision == HUB["revision"]


def test_weights_know_their_run(root):
    """Prevents the median of five seeds from passing for the score of one file."""
    put(root, 0.59, 0.61, 0.57, of=replace(STUDENT, revision="1" * 40))
    measured = card_results(root, "distilbert", run=key_of(root, 3))
    tuning = measured.fine_tuning
    assert (tuning.seed, tuning.seconds, tuning.machine) == (3, 1.5, "cpu, 2 CPU threads")
    assert (tuning.base_hub, tuning.base_revision) == (STUDENT.source, "1" * 40)
    assert tuning.base_teacher == "google-bert/bert-base-uncased"
    assert (tuning.task, tuning.columns, tuning.examples) == (
        "rte", ("sentence1", "sentence2"), 2490)  # fmt: skip
    assert tuning.settings["learning_rate"] == 3e-5
    (result,) = measured.rows[0].results
    assert (result.here, result.here_text) == (57.0, "57.0")
    assert "| RTE | accuracy | 3 | 59.0 (57.0 to 61.0) | 57.0 |" in card_of(measured)


def test_a_folder_of_kept_weights_names_its_run(root):
    """Prevents a guess at which run made some weights."""
    put(root, 0.6)
    run = key_of(root, 1)
    (root / "models" / run).mkdir(parents=True)
    assert run_of(root / "models" / run, root) == run
    assert run_of(root / "models" / run / "..", root) is None
    assert run_of(root.parent / run, root) is None
    assert run_of(root / "models" / "a" / "b", root) is None


def test_a_local_base_has_no_id_on_the_hub(root):
    """Prevents a folder's name from becoming a link to somebody else's model."""
    mine = made.student()
    put(root, 0.6, of=mine)
    tuning = card_results(root, mine.key, task="rte").fine_tuning
    assert (tuning.base, tuning.base_hub, tuning.seed) == ("study/none", None, None)
    assert mine.source not in card_of(card_results(root, mine.key, task="rte"))


def test_all_metrics_of_a_task_are_stated(root):
    """Prevents a mean from standing alone where two metrics were measured."""
    values = {"f1": 0.8, "accuracy": 0.7, "score": 0.75}
    mrpc = {**RTE, "source": "hub:nyu-mll/glue/mrpc"}
    given = made.settings("mrpc")
    (result,) = seeds(0.75, task="mrpc", given=given, data=mrpc)
    write_without_proof(root, replace(result, scores={"validation": values}))
    assert printed(card_results(root, "distilbert")) == {
        ("MRPC", "validation", "F1"): "80.0",
        ("MRPC", "validation", "accuracy"): "70.0",
        ("MRPC", "validation", "mean of F1 and accuracy"): "75.0",
    }


def write_without_proof(root, *results):
    """Save results whose predictions are withheld: their scores are taken as they are."""
    for result in results:
        made.put(root, result)
        made.rewrite(
            path_of(root, result.key),
            lambda record: {**record, "withheld": record["predictions"], "predictions": None},
        )


def test_both_parts_of_mnli_are_stated_once(root):
    """Prevents a part of the evaluation from being left out, or stated twice."""
    scores = {"validation_matched": {"accuracy": 0.8, "score": 0.8},
              "validation_mismatched": {"accuracy": 0.7, "score": 0.7}}  # fmt: skip
    (result,) = seeds(0.8, task="mnli", scores=scores)
    write_without_proof(root, result)
    measured = card_results(root, "distilbert")
    assert printed(measured) == {
        ("MNLI", "validation_matched", "accuracy"): "80.0",
        ("MNLI", "validation_mismatched", "accuracy"): "70.0",
    }
    assert {each.data.config for each in measured.rows[0].results} == {"mnli"}


def test_questions_have_exact_match_and_f1(root):
    """Prevents one of SQuAD's two metrics from going missing, or an F1 of 0.87 percent."""
    data = {**RTE, "source": "hub:rajpurkar/squad/plain_text"}
    write_without_proof(root, *made.on_squad(0.85, 0.87, 0.86, data=data))
    measured = card_results(root, "distilbert")
    assert printed(measured) == {
        ("SQuAD", "validation", "exact match"): "76.0 (75.0 to 77.0)",
        ("SQuAD", "validation", "F1"): "86.0 (85.0 to 87.0)",
    }
    assert {each.pipeline for each in measured.rows[0].results} == {"question-answering"}
    card = ModelCard(card_of(measured, "DistilBertForMaskedLM", None)).data
    assert sorted(each.metric_value for each in card.eval_results) == [76.0, 86.0]
    assert card.metrics == ["exact_match", "f1"]


def test_a_table_with_two_decimals_has_them_here(root):
    """Prevents IMDb's 92.82 from being 92.8 on the card alone."""
    data = {**RTE, "source": "hub:stanfordnlp/imdb/plain_text"}
    result = on("imdb", {"accuracy": 0.92816, "score": 0.92816}, "test", data=data)
    write_without_proof(root, result)
    measured = card_results(root, "distilbert")
    assert printed(measured) == {("IMDb", "test", "accuracy"): "92.82"}
    assert "validation data" not in card_of(measured)


@pytest.mark.parametrize(
    ("task", "data", "elsewhere"),
    [
        ("rte", {**RTE, "revision": None, "source": "RTE"}, "local files"),
        ("rte", {**RTE, "name": "the demo world"}, "stand-in data: the demo world"),
        ("rte", {**RTE, "source": "hub:someone/else/rte"}, "local files"),
        ("stars", {**RTE, "source": "hub:someone/reviews"}, "custom task"),
        ("stars", {**RTE, "revision": None, "source": "files of stars"}, "custom task"),
    ],
)
def test_other_data_than_the_hubs_are_called_by_their_name(root, task, data, elsewhere):
    """Prevents stand-in data and custom tasks from claiming a data set of the Hub."""
    put(root, 0.6, task=task, given=settings(task), data=data)
    measured = card_results(root, "distilbert")
    found = measured.rows[0].results[0].data
    assert (found.elsewhere, found.hub, found.config, found.revision) == (
        elsewhere,
        None,
        None,
        None,
    )
    card = ModelCard(card_of(measured))
    assert card.data.datasets is None
    assert card.data.eval_results[0].dataset_type == f"not on the Hub: {elsewhere}"


def test_caveats_are_those_of_the_tables(root):
    """Prevents a card from being silent about what the tables say of a score."""
    given = settings(limit=100)
    put(root, 0.5, 0.6, given=given, marks=("degenerate: one answer for all of validation",))
    withhold(root, find(root).results[1])
    damaged = path_of(root, key_of(root, 1)).with_name("seed-7.json")
    damaged.write_text("{")
    (row,) = card_results(root, "distilbert").rows
    said = "\n".join(row.notes)
    assert row.limit == 100
    assert "or nearly one number), but counted: RTE seeds 1 and 2." in said
    assert "Predictions not published: RTE seed 2." in said
    assert "seed-7.json" in said
    assert str(root) not in said
    assert row.results[0].count == "2/3"


def test_an_undefined_score_stays_blank(root):
    """Prevents a number where the metric has none."""
    result = on("cola", {"matthews": None, "accuracy": 0.69, "score": None})
    write_without_proof(root, result)
    matthews, accuracy = card_results(root, "distilbert").rows[0].results
    assert (matthews.median, matthews.text, matthews.count) == (None, "", "0/1")
    assert accuracy.text == "69.0"


def test_one_task_has_its_own_share(root):
    """Prevents a share over nine tasks on the card of a model for one of them."""
    for task, score in (("rte", 0.6), ("wnli", 0.9)):
        for of, better in ((TEACHER, 0.05), (STUDENT, 0.0)):
            put(root, score + better, of=of, task=task, given=settings(task))
    (both,) = card_results(root, "distilbert").rows
    (one,) = card_results(root, "distilbert", task="rte").rows
    assert list(both.retained.tasks) == ["RTE", "WNLI"]
    assert list(one.retained.tasks) == ["RTE"]
    assert (both.mean, both.mean_of) == ("75.0", ("RTE", "WNLI"))
    assert (one.mean, one.mean_of) == ("", ())
    said = card_of(card_results(root, "distilbert"), "DistilBertForMaskedLM", None)
    assert "- Mean of the medians over RTE, WNLI: 75.0." in said
    assert both.retained.text.split()[0] == f"{100 * 1.5 / 1.6:.1f}"
    assert one.retained.text.split()[0] == f"{100 * 0.6 / 0.65:.1f}"
    assert one.retained.single == ("RTE",)


def test_a_share_that_is_unknown_says_why(root):
    """Prevents a share of another teacher than the student's."""
    other = replace(BERT, digest="88888888", weights="8" * 64)
    student = replace(STUDENT, revision=None, teacher_weights="7" * 64)
    put(root, 0.7, of=replace(other, revision=None))
    put(root, 0.6, of=student)
    (row,) = card_results(root, "distilbert").rows
    assert row.retained is None
    assert "had other weights" in row.why_not_retained
    assert "Share retained of the teacher's score: unknown, its teacher had" in card_of(
        card_results(root, "distilbert")
    )


def test_two_ways_of_training_are_two_rows(root):
    """Prevents (D) from being mixed with plain fine-tuning, or passing for it."""
    options = distilled_from(BERT)
    put(root, 0.7, of=BERT)
    put(root, 0.6, 0.62)
    put(root, 0.64, 0.66, given=settings(method=options))
    measured = card_results(root, "distilbert", task="rte")
    assert [(row.label, row.distilled) for row in measured.rows] == [
        ("distilbert", False),
        ("distilbert (D)", True),
    ]
    assert measured.fine_tuning.distillation is None
    (run,) = [key for key, result in find(root).by_key.items() if result.score == 0.66]
    own = card_results(root, "distilbert", run=run)
    assert [row.label for row in own.rows] == ["distilbert (D)"]
    assert own.fine_tuning.distillation["teacher_model"] == "google-bert/bert-base-uncased"
    assert own.fine_tuning.distillation["alpha_ce"] == 0.5
    names = [each.metric_name for each in ModelCard(card_of(measured)).data.eval_results]
    assert names == [
        "accuracy, median of 2 seeds, row: distilbert",
        "accuracy, median of 2 seeds, (D), row: distilbert (D)",
    ]


def test_outdated_results_are_left_out(root):
    """Prevents scores on yesterday's data beside those on today's."""
    put(root, 0.5, given=settings(content="0" * 16), day=1)
    put(root, 0.6, given=settings(content="1" * 16), day=2)
    assert printed(card_results(root, "distilbert")) == {("RTE", "validation", "accuracy"): "60.0"}


def test_a_score_without_its_proof_is_refused(root):
    """Prevents a card from spreading a score that its own predictions contradict."""
    put(root, 0.6, 0.7)
    made.rewrite(
        path_of(root, key_of(root, 2)),
        lambda record: {
            **record, "score": 0.9, "scores": {"validation": {"accuracy": 0.9, "score": 0.9}}
        },
    )  # fmt: skip
    with pytest.raises(UserError, match=r"seed-2: scores\.validation\.accuracy is 0\.9, but 0\.7"):
        card_results(root, "distilbert")


def test_a_teachers_score_is_checked_too(root):
    """Prevents a share of a score that its predictions contradict."""
    put(root, 0.6)
    put(root, 0.7, of=TEACHER)
    made.rewrite(
        path_of(root, key_of(root, 1, TEACHER)),
        lambda record: {
            **record, "score": 0.6, "scores": {"validation": {"accuracy": 0.6, "score": 0.6}}
        },
    )  # fmt: skip
    with pytest.raises(UserError, match="bert-99999999"):
        card_results(root, "distilbert")


def test_speed_is_that_of_table_3(root):
    """Prevents a ratio to another model, or of another session."""
    put(root, 0.6)
    other = ("other", "other-1", 1_000_000, 1.0)
    timed = session(("bert", BERT.key, 109_500_000, 4.0), other,
                    ("mine", STUDENT.key, 66_400_000, 2.0))  # fmt: skip
    write_session(root, timed)
    write_session(root, session(("bert", BERT.key, 109_500_000, 4.0), other))
    (table,) = card_results(root, "distilbert").speed
    shown = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [row["Model"] for row in shown] == ["bert", "mine"]
    of_table = [row for row in cells(write_tables(root)[2]).items() if row[0].startswith("mine")]
    for name in table.columns[1:]:
        assert shown[1][name] == of_table[0][1][name]
    assert shown[1]["Ratio"] == "2.00"
    assert "Seconds" not in table.columns
    assert [note.partition(":")[0] for note in table.notes] == ["Measured"]


def test_times_of_random_weights_are_not_the_models(root):
    """Prevents times of a config from passing for those of the weights."""
    put(root, 0.6)
    timed = session(("mine", STUDENT.key, 66_400_000, 2.0))
    write_session(root, replace(timed, models=(replace(timed.models[0], random_weights=True),)))
    assert card_results(root, "distilbert").speed == ()


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"model": "distilbrt-0123abcd"}, "did you mean 'distilbert-0123abcd'"),
        ({"model": "bert", "task": "rt"}, "did you mean 'rte'"),
        ({"model": "bert", "run": "a/b/c/seed-1"}, "no result of the run"),
        ({"model": "student"}, "choose from student-1, student-2"),
    ],
)
def test_what_is_not_there_is_named(root, asked, reason):
    """Prevents the card of another model than the one that was meant."""
    put(root, 0.6)
    put(root, 0.6, of=BERT)
    for digest in "12":
        put(root, 0.6, of=made.model("student", digest))
    with pytest.raises(UserError, match=reason):
        card_results(root, **asked)


def test_a_run_of_another_model_is_refused(root):
    """Prevents one model's weights from being shown with another's scores."""
    put(root, 0.6)
    put(root, 0.6, of=BERT)
    with pytest.raises(UserError, match="is not one of bert-99999999"):
        card_results(root, "bert", run=key_of(root, 1))
    with pytest.raises(UserError, match="not a folder"):
        card_results(root / "missing", "bert")


def test_a_run_that_does_not_count_says_why(root):
    """Prevents a riddle where a result is damaged."""
    put(root, 0.6, 0.7)
    run = key_of(root, 2)
    path_of(root, run).write_text("{")
    with pytest.raises(UserError, match=r"no result of the run .*seed-2' counts: .+"):
        card_results(root, "distilbert", run=run)


def test_odd_records_make_no_card_fail(root):
    """Prevents a stack trace on a record with open parts that hold anything."""
    data = {**RTE, "examples": "many", "revision": "not a commit"}
    put(root, 0.6, data=data, provenance={"machine": []}, times={"train": "long"})
    measured = card_results(root, "distilbert", run=key_of(root, 1))
    assert measured.rows[0].results[0].data.examples is None
    assert measured.fine_tuning.seconds is None
    assert json.dumps(ModelCard(card_of(measured)).data.to_dict())


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_results_of_every_version_have_a_card(version, root):
    """Prevents old results from being left out, or from failing."""
    folder = shutil.copytree(ROOT / "tests" / "golden" / f"results-{version}", root)
    for key in {result.model.key for result in find(folder).results}:
        measured = card_results(folder, key)
        assert ModelCard(card_of(measured)).data.eval_results
