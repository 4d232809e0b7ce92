"""The model card: what the Hub reads in it, what a person reads, and what must not be in it."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import tiny
import transformers
import yaml
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard_data import model_index_to_eval_results
from safetensors.numpy import save_file

from angels_share.card.render import (
    CardData,
    CardFacts,
    CardFineTuning,
    CardMeasured,
    CardPretraining,
    CardResult,
    CardRetained,
    CardRow,
    CardShape,
    CardTable,
    CardTeacher,
    facts_of,
    metadata_of,
    render,
)
from angels_share.errors import UserError

BERT = "google-bert/bert-base-uncased"
BERT_REVISION = "86b5e0934494bd15c9632b12f734a8a67f723594"
GLUE_REVISION = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
ID = "someone/small-bert"
PLACE = "/home/alice/secret-place/thing"


def record(**changes):
    """Return a record as `run_pretrain_distill` writes it."""
    return {
        "status": "complete",
        "step": 4000,
        "ablation": "none",
        "teachers": [{"name": "bert", "source": BERT, "revision": BERT_REVISION, "sha256": None}],
        "corpus": {
            "fingerprint": "025854397a361926",
            "sources": [
                {"name": "corpus.txt", "identity": ".txt:f4cb"},
                {"name": "wikimedia/wikipedia:20231101.en", "identity":
                 "hub:wikimedia/wikipedia:20231101.en:b04c8d1c"},
            ],
            "options": {"max_length": 128, "min_tokens": 3, "text_column": "text"},
            "tally": {"texts": 120, "cut": 0, "blank": 0, "short": 0, "unknown": 0},
            "train": {"sequences": 11100, "tokens": 170200},
            "validation": {"sequences": 900, "tokens": 13800},
        },
        "student": {
            "class": "DistilBertForMaskedLM",
            "layers_of_the_teacher": [0, 2],
            "asked_for": {"student": None, "student_init": "teacher", "num_layers": 2},
        },
        "recipe": {
            "alpha_ce": 5.0, "alpha_mlm": 2.0, "alpha_cos": 1.0, "alpha_mse": 0.0,
            "temperature": 2.0, "learning_rate": 0.0005, "optim": "adamw_torch_fused",
            "restrict_ce_to_mask": False, "data_seed": None, "student": "4380b913506aaf58",
            "teachers": ["597e77efca395566"], "data": "964e48ca0ebe7bf1", "seed": 3,
        },
        "validation": {"eval_perplexity": 152.0797, "eval_loss": 11.0},
        "validation_history": [
            {"step": 2000, "eval_loss": 12.5, "eval_perplexity": 171.25},
            {"step": 4000, "eval_loss": 11.0, "eval_perplexity": 152.0797},
        ],
        "versions": {"angels-share": "0.1.0", "torch": "2.13.0+cpu"},
        "threads": 2,
        "device": "cpu",
        **changes,
    }  # fmt: skip


def saved(folder, distilled=None, **config):
    """Write a folder as `save_pretrained` does, with weights of 6 float32 parameters."""
    folder.mkdir(exist_ok=True)
    config = {"architectures": ["DistilBertForMaskedLM"], "model_type": "distilbert", "n_layers": 2,
              "dim": 32, "vocab_size": 160, "max_position_embeddings": 64, **config}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"weight": np.zeros((2, 3), np.float32)}, folder / "model.safetensors")
    if distilled is not None:
        (folder / "distil.json").write_text(json.dumps(distilled))
    return folder


@pytest.fixture
def student(tmp_path):
    folder = saved(tmp_path / "student", record())
    return facts_of(folder, ID, license="apache-2.0", languages=["en"])


def rte(**changes):
    data = CardData("RTE", "validation", "nyu-mll/glue", "rte", GLUE_REVISION, content="a" * 8,
                    examples=277)  # fmt: skip
    result = CardResult(
        task="rte", pipeline="text-classification", data=data, title="accuracy",
        metric="accuracy", count="4/5", seeds=4, median=59.927, highest=62.1,
        text="59.9 (57.0 to 62.1; 4/5)", here=57.0, here_text="57.0",
    )  # fmt: skip
    return replace(result, **changes)


def tuned(*results, **changes):
    """Return the facts of a model that was fine-tuned for RTE."""
    row = CardRow(
        "distilbert", results or (rte(),),
        retained=CardRetained("96.1 [94.0 to 98.2]", "bert", BERT, BERT_REVISION, {"RTE": "62.4"},
                              resamples=1000),
        notes=("Hyper-parameters: learning rate 3e-5; the rest: `python -m eval_harness tasks`.",),
        code=("0.1.0 (commit 3ddf84a)",), libraries={"torch": "2.13.0"},
        machines=("cpu, 2 CPU threads",),
    )  # fmt: skip
    tuning = CardFineTuning(
        "rte", "RTE", ("sentence1", "sentence2"), None, 2490, {"learning_rate": 3e-5}, "distilbert",
        "distilbert/distilbert-base-uncased", "12040accade4e8a0f71eabdb258fecc2e7e948be", BERT,
        seed=3, seconds=38.2, machine="cpu, 2 CPU threads",
    )  # fmt: skip
    speed = CardTable(("Model", "ms a pair"), (("bert", "40.0"), ("distilbert", "20.0")),
                      ("Measured: a chip.",))  # fmt: skip
    measured = CardMeasured((row,), (speed,), {"RTE": "Dagan et al. 2006"}, tuning)
    shape = CardShape("DistilBertForSequenceClassification", "rte", 6, 768, 30522, 512,
                      ("entailment", "not_entailment"), parameters=66_955_010, bytes=267_832_560,
                      dtypes=("float32",))  # fmt: skip
    return replace(CardFacts("someone/small-rte", shape, measured=measured, license="apache-2.0",
                             languages=("en",)), **changes)  # fmt: skip


def front(text):
    return yaml.safe_load(text.split("---\n")[1])


def section(text, heading):
    """Return the text of a section without its heading."""
    (found,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |^<!-- angels)", text, re.M | re.S)
    return found


def generated(text):
    (found,) = re.findall(r"<!-- angels-share: begin.*angels-share: end -->", text, re.S)
    return found


def test_the_hub_reads_a_students_metadata(student):
    """Prevents metadata that the Hub's own client reads as other values, or not at all."""
    data = ModelCard(render(student)).data
    assert isinstance(data, ModelCardData)
    assert data.to_dict() == metadata_of(student) == {
        "language": "en",
        "license": "apache-2.0",
        "library_name": "transformers",
        "pipeline_tag": "fill-mask",
        "base_model": BERT,
        "datasets": ["wikimedia/wikipedia"],
        "tags": ["distillation", "angels-share"],
    }  # fmt: skip


def test_the_hub_reads_the_results_of_a_fine_tuned_model():
    """Prevents a result that the Hub shows with another value, data set, revision or metric."""
    text = render(tuned())
    data = ModelCard(text).data
    assert data.to_dict() == metadata_of(tuned()) == front(text)
    assert (data.base_model, data.get("base_model_relation")) == (
        "distilbert/distilbert-base-uncased",
        "finetune",
    )
    assert data.tags == ["distillation", "angels-share", "rte"]
    name, (median, here) = model_index_to_eval_results(front(text)["model-index"])
    assert name == data.model_name == "small-rte"
    assert (median.task_type, median.metric_type) == ("text-classification", "accuracy")
    assert (median.dataset_type, median.dataset_name) == ("nyu-mll/glue", "RTE")
    assert (median.dataset_config, median.dataset_split) == ("rte", "validation")
    assert median.dataset_revision == here.dataset_revision == GLUE_REVISION
    assert (median.metric_value, here.metric_value) == (0.59927, 0.57)
    assert median.metric_name == "accuracy, median of 4 of 5 seeds"
    assert here.metric_name == "accuracy, these weights (seed 3)"


def test_results_after_fine_tuning_are_called_so(student):
    """Prevents a student without a head from claiming a score that only its copies have."""
    row = CardRow("small-bert, limit 100", (rte(here=None),), distilled=True, limit=100)
    facts = replace(student, measured=CardMeasured((row,)))
    _, (only,) = model_index_to_eval_results(metadata_of(facts)["model-index"])
    assert only.metric_name == (
        "accuracy, median of 4 of 5 seeds, after fine-tuning, (D), at most 100 examples per split"
    )
    said = section(render(facts), "Results")
    assert "those copies are not published here" in said
    assert "Few examples: at most 100 of each split" in said


def test_data_that_are_not_the_hubs_claim_no_data_set_of_it():
    """Prevents made-up data from standing beside real ones on the Hub under the same name."""
    made = CardData(
        "RTE", "validation", elsewhere="stand-in data: the demo world", content="a1b2c3"
    )
    facts = tuned(rte(data=made))
    metadata = metadata_of(facts)
    assert "datasets" not in metadata
    (entry,) = metadata["model-index"][0]["results"]
    assert entry["dataset"] == {
        "type": "not on the Hub: stand-in data: the demo world",
        "name": "RTE (stand-in data: the demo world)",
        "split": "validation",
    }
    text = render(facts)
    assert "| RTE (stand-in data: the demo world) |" in text
    assert "Scores on stand-in data say nothing" in section(text, "Limits")


def test_questions_are_scored_in_percent_as_their_metrics_are():
    """Prevents an F1 of 0.87 beside everybody else's 87."""
    squad = CardData("SQuAD", "validation", "rajpurkar/squad", "plain_text", "7" * 40)
    facts = tuned(rte(pipeline="question-answering", data=squad, metric="f1", median=86.9965))
    entries = model_index_to_eval_results(metadata_of(facts)["model-index"])[1]
    assert entries[0].metric_value == 86.9965


def test_an_undefined_score_is_blank_and_not_claimed():
    """Prevents a score of nothing, or of 0, where no score is defined."""
    facts = tuned(rte(median=None, text="", count="0/5", here=None, here_text=""))
    assert "model-index" not in metadata_of(facts)
    assert "| RTE | accuracy | 0/5 |  |" in render(facts)


def test_one_seed_is_no_median():
    """Prevents a single run from passing for a median, and an average's arguments from a loss."""
    facts = tuned(rte(count="1", seeds=1, here=None, title="F1 (macro)", metric="f1",
                      arguments={"average": "macro"}))  # fmt: skip
    (only,) = model_index_to_eval_results(metadata_of(facts)["model-index"])[1]
    assert only.metric_name == "F1 (macro), 1 seed"
    assert (only.metric_type, only.metric_args) == ("f1", {"average": "macro"})
    assert ModelCard(render(facts)).data.to_dict() == metadata_of(facts)


def test_a_mean_of_metrics_is_no_metric_of_the_hub():
    """Prevents a mean of F1 and accuracy under the name of one of them."""
    facts = tuned(rte(title="mean of F1 and accuracy", metric=None))
    assert metadata_of(facts).keys().isdisjoint({"model-index", "metrics"})
    assert "| RTE | mean of F1 and accuracy |" in render(facts)


def test_a_students_relation_is_left_out(student):
    """Prevents a relation that the Hub refuses, or guesses to be a fine-tuning."""
    assert "base_model_relation" not in metadata_of(student)


def test_a_fine_tuned_model_derives_from_what_was_fine_tuned(student):
    """Prevents the teacher's name in place of a base that is not on the Hub."""
    facts = tuned(pretraining=student.pretraining)
    tuning = replace(facts.measured.fine_tuning, base_hub=None)
    unknown = replace(facts, measured=replace(facts.measured, fine_tuning=tuning))
    assert {"base_model", "base_model_relation"}.isdisjoint(metadata_of(unknown))
    named = metadata_of(replace(unknown, base_models=("someone/small-bert",)))
    assert (named["base_model"], named["base_model_relation"]) == (ID, "finetune")


def test_several_teachers_are_a_list(student):
    """Prevents a second teacher from being forgotten, and a local one from getting a link."""
    others = (CardTeacher("b/large", "b/large", "1" * 40), CardTeacher("local", sha256="2" * 64))
    made = replace(student.pretraining, teachers=(*student.pretraining.teachers, *others))
    facts = replace(student, pretraining=made)
    assert metadata_of(facts)["base_model"] == [BERT, "b/large"]
    assert "- Teacher: local (weights' sha256 2222222222222222)." in render(facts)


def test_plain_fine_tuning_is_no_distillation():
    """Prevents the tag that people search by on a model that had no teacher."""
    facts = tuned()
    tuning = replace(facts.measured.fine_tuning, base_teacher=None)
    alone = replace(facts, measured=replace(facts.measured, fine_tuning=tuning))
    assert metadata_of(alone)["tags"] == ["angels-share", "rte"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("-inf"), np.nan])
def test_what_is_not_finite_is_refused(student, value):
    """Prevents `.nan` in the metadata, and a card that states infinity as a measurement."""
    with pytest.raises(UserError, match=r"results\[0\]\.median is (nan|-?inf)"):
        render(tuned(rte(median=value)))
    with pytest.raises(UserError, match=r"pretraining\.perplexity is"):
        render(replace(student, pretraining=replace(student.pretraining, perplexity=value)))


def test_a_record_with_nan_is_refused(tmp_path):
    """Prevents a NaN of a record, which Python's JSON reads, from reaching the card."""
    folder = saved(tmp_path / "s", record(recipe={"alpha_ce": float("nan")}))
    with pytest.raises(UserError, match="alpha_ce is nan"):
        render(facts_of(folder, ID))


def test_numbers_of_numpy_are_plain_numbers():
    """Prevents `!!python/object/apply:numpy` in the metadata, which no safe reader reads."""
    plain = rte(median=59.5, highest=62.0, here=57.0)
    numpy = rte(
        median=np.float64(59.5), highest=np.float32(62), here=np.float16(57), seeds=np.int64(4)
    )
    assert render(tuned(numpy)) == render(tuned(plain))
    assert "!!" not in render(tuned(numpy))


def test_the_same_facts_are_the_same_bytes(student, tmp_path):
    """Prevents a push of nothing new from making a commit."""
    for facts in (student, tuned()):
        text = render(facts)
        assert render(facts) == text
        assert render(facts, text) == text
        assert render(facts, render(facts, text)) == text
    jumbled = dict(sorted(record().items(), reverse=True))
    jumbled["recipe"] = dict(sorted(jumbled["recipe"].items(), reverse=True))
    again = facts_of(saved(tmp_path / "again", jumbled), ID, license="apache-2.0", languages=["en"])
    assert render(again) == render(student)


THEIRS = """\
---
# what I know better
license: mit  # I asked
language:
- en
- fr
thumbnail: "https://example.com/a.png"
tags:
- mine
widget:
- text: "Hello   [MASK]"

# the end
---

# A title of mine

My words, with trailing blanks   \n\n\n> and a `---`
"""


def test_a_card_without_our_part_loses_nothing(student):
    """Prevents a push from overwriting what somebody wrote by hand."""
    text = render(student, THEIRS)
    body = THEIRS.split("---\n", 2)[2]
    assert text.split("---\n", 2)[2].startswith(body)
    for line in ("# what I know better", "license: mit  # I asked", "# the end",
                 'thumbnail: "https://example.com/a.png"', '- text: "Hello   [MASK]"'):  # fmt: skip
        assert f"\n{line}\n" in text
    metadata = front(text)
    assert (metadata["license"], metadata["language"]) == ("mit", ["en", "fr"])
    assert metadata["tags"] == ["distillation", "angels-share", "mine"]
    assert metadata["base_model"] == BERT
    assert "# small-bert" not in text
    assert "| Licence | mit |" in text
    assert "| Language | en, fr |" in text
    assert "mit. It was made from" in section(text, "Licence")
    assert render(student, text) == text


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\n\n\n"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_card_without_metadata_gets_them_above(student, end, newline):
    """Prevents a body that is changed, or glued to ours, where there are no metadata yet."""
    theirs = f"# Mine{newline}{newline}words{end.replace(chr(10), newline)}"
    text = render(student, theirs)
    assert ModelCard(text).data.to_dict() == metadata_of(student)
    assert theirs in text
    assert f"{newline}{newline}<!-- angels-share: begin" in text
    assert newline == "\n" or "\n" not in text.replace("\r\n", "")
    assert render(student, text) == text


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_what_stands_outside_of_our_part_stays(student, newline):
    """Prevents words above or below our part from changing by a byte at a push."""
    text = render(student).replace("\n", newline)
    above = f"---{newline}\t Above it, by hand {newline}{newline}"
    start, part = text.index("<!-- angels-share: begin"), generated(text)
    edited = text[:start] + above + part + f"{newline} below  {newline}without an end"
    again = render(replace(student, license="mit"), edited)
    rest = again.split(generated(again))
    was = edited.split(generated(edited))
    assert rest[0].split(f"---{newline}", 2)[2] == was[0].split(f"---{newline}", 2)[2]
    assert rest[1] == was[1]
    assert "| Licence | mit |" in again


def test_metadata_that_we_wrote_are_updated(student):
    """Prevents tags, licences and results of an earlier push from staying for ever."""
    first = render(replace(tuned(), base_models=("someone/old",)))
    now = replace(student, repo_id="someone/small-rte", license="mit", languages=("de",))
    metadata = front(render(now, first))
    assert metadata == metadata_of(now)


def test_metadata_that_people_added_stay(student):
    """Prevents the loss of results, tags and data sets that others added to our card."""
    text = render(tuned())
    data = front(text)
    foreign = {
        "task": {"type": "text-classification"},
        "dataset": {"type": "nyu-mll/glue", "name": "RTE", "config": "rte", "split": "test"},
        "metrics": [{"type": "accuracy", "value": 0.5, "verified": True}],
    }
    data["model-index"][0]["results"].append(foreign)
    data["tags"].insert(0, "theirs")
    data["datasets"] = ["nyu-mll/glue", "someone/else"]
    data["license"] = "cc-by-4.0"
    data["inference"] = False
    edited = f"---\n{yaml.safe_dump(data, sort_keys=False)}---\n" + text.split("---\n", 2)[2]
    again = front(render(tuned(rte(median=61.0), license="mit"), edited))
    assert again["model-index"][0]["results"][1] == foreign
    assert again["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.61
    assert len(again["model-index"][0]["results"]) == 2
    assert again["tags"] == ["distillation", "angels-share", "rte", "theirs"]
    assert again["datasets"] == ["nyu-mll/glue", "someone/else"]
    assert (again["license"], again["inference"]) == ("cc-by-4.0", False)
    none = replace(tuned(), measured=CardMeasured())
    assert front(render(none, edited))["model-index"][0]["results"] == [foreign]


def test_results_that_are_gone_are_gone():
    """Prevents yesterday's score from standing beside today's weights."""
    text = render(replace(tuned(), measured=CardMeasured()), render(tuned()))
    assert front(text).keys().isdisjoint({"model-index", "metrics", "datasets"})


@pytest.mark.parametrize(
    ("existing", "reason"),
    [
        ("---\na: [1\n---\n", "can't be read"),
        ("---\n- a\n---\n", "not lines of"),
        ("---\nlicense: mit\nlicense: mit\n---\n", "'license' twice"),
        ("---\na: &x [1]\nb: *x\n---\n", "alias"),
        ("---\nmodel-index: yes\n---\n", "model-index"),
        ("---\nmodel-index: [{name: x}]\n---\n", "model-index"),
        ("<!-- angels-share: begin -->\n", "are begin instead"),
        ("<!-- angels-share: end -->\n<!-- angels-share: begin -->\n", "end, begin instead"),
        (2 * "<!-- angels-share: begin -->\n<!-- angels-share: end -->\n", "restore them"),
    ],
)
def test_a_damaged_card_is_refused(student, existing, reason):
    """Prevents the loss of what can't be told apart, or can't be read."""
    with pytest.raises(UserError, match=f"existing model card.*{reason}"):
        render(student, existing)


def test_metadata_in_one_line_are_kept(student):
    """Prevents metadata that can't be changed line by line from being lost or broken."""
    text = render(student, "---\n{license: mit, widget: [{text: a}], tags: mine}\n---\nwords\n")
    metadata = front(text)
    assert (metadata["license"], metadata["widget"]) == ("mit", [{"text": "a"}])
    assert metadata["tags"] == ["distillation", "angels-share", "mine"]
    assert render(student, text) == text


HOSTILE = (
    "a\n---\nb",
    "a | b | c",
    "<script>alert(1)</script>",
    "[click](https://evil.example)",
    "![x](https://evil.example/a.png) https://evil.example",
    "``` `code` ``",
    "<!-- angels-share: end -->",
    "x\n<!-- angels-share: end -->\n# Title",
    "\u2028---\u2028license: mit",
    "# heading\n\n- list",
    "&lt;b&gt; $x$ ~~y~~ **z** _w_ \\",
    "'\": {[}] !!python/object:os.system *a &b",
    "a" * 100_000,
    "\ud83d \x00 \x1b[31m \u202e",
    "</details>",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_names_in_records_are_only_names(text, tmp_path):
    """Prevents a name from breaking metadata, tables or markers, or from adding its own markup."""
    distilled = record(
        teachers=[{"name": text, "source": text, "revision": text, "sha256": text}],
        recipe={text: 1.0, "alpha_ce": 1.0, "optim": text},
        versions={text: text, "torch": text},
        device=text,
    )
    distilled["corpus"]["sources"] = [{"name": text, "identity": f"hub:{text}:1"}]
    folder = saved(tmp_path / "s", distilled, id2label={"0": text, "1": "b"})
    facts = facts_of(folder, ID)
    row = CardRow(text, (rte(title=text, task=text, text=text, count=text, data=CardData(
        text, text, elsewhere=text, content=text)),), notes=(text, f"`{text}`"), code=(text,),
        retained=CardRetained(text, text, tasks={text: text}, single=(text,),
        why_no_interval=text), libraries={text: text}, machines=(text,))  # fmt: skip
    tuning = CardFineTuning(text, text, (text, text), base=text, base_teacher=text, machine=text,
                            settings={text: text}, distillation={"alpha_ce": 1.0,
                            "teacher_model": text}, seed=1)  # fmt: skip
    table = CardTable((text, "b"), ((text, text),), (text,))
    measured = CardMeasured((row, row), (table,), {text: text}, tuning)
    shape = replace(facts.shape, architecture="BertForSequenceClassification", task="rte")
    for facts_now in (
        facts,
        replace(facts, measured=measured),
        replace(facts, measured=measured, shape=shape),
    ):
        card = render(facts_now)
        assert ModelCard(card).data.to_dict() == metadata_of(facts_now)
        assert render(facts_now, card) == card
        check_structure(generated(card))


def check_structure(part):
    """Check that tables have as many cells in each row as in their head, and nothing of HTML."""
    assert part.count("<!--") == part.count("-->") == 3
    rest = re.sub(r"```.*?```", "", part, flags=re.S)
    ours = r"<!-- angels-share: .*? -->|</?details>|</?summary>"
    assert "<" not in re.sub(ours, "", rest)
    assert not re.search(r"(?<!\\)\[[^\]]*\]\((?!https://huggingface\.co/)", rest)
    assert not re.search(r"(?<!\\)://evil", rest)
    width = None
    for line in rest.splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line))
        if line.startswith("|"):
            assert width in (None, cells), line
            width = cells
        else:
            assert not cells, line
            width = None
        assert not line.startswith(("# ", "---", "    "))
        assert len(line) < 5000


def with_text(value, text):
    """Return a record with a text in place of each that it has."""
    if isinstance(value, dict):
        return {name: with_text(each, text) for name, each in value.items()}
    if isinstance(value, list):
        return [with_text(each, text) for each in value]
    return text if isinstance(value, str) else value


@pytest.mark.parametrize(
    "path",
    [
        PLACE,
        "~alice/secret-place/thing",
        "C:\\Users\\alice\\secret-place\\thing",
        "\\\\alice\\secret-place\\thing",
        "file:///home/alice/secret-place/thing",
        "see /home/alice/secret-place/thing, and (/home/alice/secret-place)",
        "/home/alice",
        "/Users/alice/",
        "token hf_secretplacealice0123456789",
    ],
)
def test_no_place_of_the_machine_is_told(path, tmp_path):
    """Prevents a user's name, a folder or a token of this machine from going up to the Hub."""
    distilled = with_text(record(machine={"processor": "p"}, streamed=""), path)
    distilled["corpus"]["sources"][0]["identity"] = f"hub:{path}:0"
    distilled["corpus"]["sources"][1]["identity"] = f"hub:{path}:0"
    folder = saved(tmp_path / "s", distilled, id2label={"0": path, "1": "b"}, finetuning_task=path)
    streamed = saved(tmp_path / "t", {**distilled, "corpus": {"streamed": [path]}})
    for facts in (facts_of(folder, ID), facts_of(streamed, ID)):
        card = render(facts)
        assert not re.search(r"alice|secret-?place|/home|Users|tmp", card)
    row = CardRow(path, (rte(data=CardData(path, path, elsewhere=path)),), notes=(path,),
                  code=(path,), machines=(path,), libraries={path: path})  # fmt: skip
    tuning = CardFineTuning("rte", path, (path, path), settings={path: path}, base=path,
                            base_teacher=path, machine=path, seed=1)  # fmt: skip
    measured = CardMeasured(
        (row,), (CardTable((path,), ((path,),), (path,)),), {path: path}, tuning
    )
    assert not re.search(r"alice|secret", render(replace(tuned(), measured=measured)))


@pytest.mark.parametrize("text", ["nyu-mll/glue", "and/or", "1e-4 / 2", "SQuAD EM / F1", "a/b/c"])
def test_a_slash_makes_no_path(text):
    """Prevents names of data sets from being blacked out."""
    assert text in render(tuned(rte(title=text)))


def code_of(text):
    (found,) = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    return found


HEADS = {
    "fill-mask": lambda: (tiny.distilbert(), tiny.wordpiece()),
    "fill-mask of RoBERTa": lambda: (tiny.roberta(), tiny.byte_bpe(roberta=True)),
    "fill-mask of ModernBERT": lambda: (tiny.modernbert(), tiny.wordpiece()),
    "text-generation": lambda: (tiny.gpt2(), tiny.byte_bpe()),
    "text-generation of Qwen3": lambda: (tiny.qwen3(), tiny.byte_bpe()),
    "feature-extraction": lambda: (
        tiny.bert(model_class=transformers.BertModel),
        tiny.wordpiece(),
    ),
    "question-answering": lambda: (
        tiny.distilbert(model_class=transformers.DistilBertForQuestionAnswering),
        tiny.wordpiece(),
    ),
    "text-classification": lambda: (
        tiny.distilbert(
            model_class=transformers.DistilBertForSequenceClassification,
            id2label={0: "entailment", 1: "not_entailment"},
            label2id={"entailment": 0, "not_entailment": 1},
        ),
        tiny.wordpiece(),
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_the_lines_of_use_run(name, tmp_path, capsys):
    """Prevents a stranger's first command from failing."""
    folder = tiny.folder(tmp_path / "model", *HEADS[name]())
    facts = facts_of(folder, ID)
    assert facts.shape.pipeline == name.partition(" ")[0]
    for measured in (CardMeasured(), tuned().measured):
        code = code_of(render(replace(facts, measured=measured)))
        assert f'"{ID}"' in code
        exec(code.replace(ID, str(folder)), {})
        assert capsys.readouterr().out.strip()


def test_a_task_of_two_texts_is_used_with_two():
    """Prevents lines of use that leave out half of the input without an error."""
    text = render(tuned())
    assert '"text_pair":' in code_of(text)
    assert "`text` is what the data set calls sentence1, `text_pair` is its sentence2." in text


def test_numbers_are_told_with_their_scale():
    """Prevents a similarity of 4.2 from being read as a class, or as a share."""
    facts = tuned()
    tuning = replace(facts.measured.fine_tuning, scale=(0.0, 5.0))
    shape = replace(facts.shape, is_regression=True, labels=("score",))
    text = render(replace(facts, shape=shape, measured=replace(facts.measured, fine_tuning=tuning)))
    assert "It returns a number, no class, labels were 0 to 5." in text
    assert "| Classes |" not in text


def test_an_unknown_class_has_no_lines_of_use():
    """Prevents lines that were never tried."""
    facts = tuned(shape=CardShape("SomethingElse", "rte"))
    assert "pipeline_tag" not in metadata_of(facts)
    assert "How to use" not in render(facts)


def test_sizes_are_those_of_the_files(tmp_path):
    """Prevents a size by hearsay: parameters, bytes and type are read from the weight files."""
    model = tiny.distilbert()
    folder = tiny.folder(tmp_path / "one", model, tiny.wordpiece())
    shape = facts_of(folder, ID).shape
    assert shape.parameters == model.num_parameters()
    assert shape.bytes == (folder / "model.safetensors").stat().st_size
    assert (shape.layers, shape.width, shape.vocabulary) == (2, 32, 160)
    assert shape.dtypes == ("float32",)
    model.half().save_pretrained(tmp_path / "many", max_shard_size="20KB")
    shards = facts_of(tmp_path / "many", ID).shape
    assert shards.parameters == model.num_parameters()
    assert shards.dtypes == ("float16",)


def test_the_longest_input_is_what_the_model_reads(tmp_path):
    """Prevents two tokens too many for RoBERTa, and an endless input of a tokenizer without one."""
    roberta = saved(tmp_path / "r", model_type="roberta", max_position_embeddings=514,
                    pad_token_id=1)  # fmt: skip
    assert facts_of(roberta, ID).shape.max_tokens == 512
    plain = saved(tmp_path / "p")
    (plain / "tokenizer_config.json").write_text('{"model_max_length": 1000000000000000019884624}')
    assert facts_of(plain, ID).shape.max_tokens == 64
    (plain / "tokenizer_config.json").write_text('{"model_max_length": 32}')
    assert facts_of(plain, ID).shape.max_tokens == 32


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x10" + bytes(7) + b'{"a": {}}       ',
                                     b"\x02" + bytes(7) + b"[]"])  # fmt: skip
def test_damaged_weights_are_named(tmp_path, content):
    """Prevents a card for weights that nobody can load."""
    folder = saved(tmp_path / "s")
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors: not a safetensors file"):
        facts_of(folder, ID)


def test_a_folder_without_a_model_is_refused(tmp_path):
    """Prevents a card of nothing."""
    with pytest.raises(UserError, match=r"no config\.json"):
        facts_of(tmp_path, ID)
    saved(tmp_path / "s")
    (tmp_path / "s" / "config.json").write_text("[]")
    with pytest.raises(UserError, match="expected an object"):
        facts_of(tmp_path / "s", ID)
    (saved(tmp_path / "t") / "distil.json").write_text("[]")
    with pytest.raises(UserError, match="not a valid distillation record"):
        facts_of(tmp_path / "t", ID)


@pytest.mark.parametrize(
    "given",
    [
        {"repo_id": "/home/alice/model"},
        {"repo_id": "a/b/c"},
        {"repo_id": "a/b\n"},
        {"license": "Apache License"},
        {"languages": ["English"]},
        {"base_models": ["./student"]},
        {"measured": tuned().measured},
    ],
)
def test_what_the_hub_refuses_is_refused_before(tmp_path, given):
    """Prevents a status 400 of the Hub after the weights went up, and results of another task."""
    folder = saved(
        tmp_path / "s", architectures=["BertForSequenceClassification"], finetuning_task="mrpc"
    )
    with pytest.raises(UserError, match="model card"):
        facts_of(folder, **{"repo_id": ID, **given})


def test_a_student_says_how_it_was_made(student):
    """Prevents a card that leaves out what somebody needs to make the student again."""
    made = section(render(student), "How it was made")
    for words in (
        f"(https://huggingface.co/{BERT}/tree/{BERT_REVISION}) at revision 86b5e09",
        "layers 0, 2 of the teacher, counted from 0",
        "5 x `L_ce`: the teacher's soft targets at temperature 2",
        "2 x `L_mlm`", "1 x `L_cos`",
        "corpus.txt, wikimedia/wikipedia:20231101.en; 120 texts; 11,100 sequences",
        "170,200 tokens", "900 sequences held out", "fingerprint `025854397a361926`",
        "4,000 steps", "perplexity: 152.08", "cpu; 2 CPU threads; time not recorded",
        "angels-share 0.1.0, torch 2.13.0+cpu", "| learning_rate | 0.0005 |",
        "| 2,000 | 12.5 | 171.25 |", "| seed | 3 |",
    ):  # fmt: skip
        assert words in made
    assert "L_mse" not in made  # of weight 0
    assert "597e77ef" not in made  # a fingerprint for the trainer alone


def test_time_and_processor_are_told_where_they_are_recorded(tmp_path):
    """Prevents a recorded time from being left out."""
    more = record(times={"train": 4210.0, "prepare": 3.21}, machine={"processor": "AMD EPYC 7B13"})
    text = render(facts_of(saved(tmp_path / "s", more), ID))
    assert "cpu; AMD EPYC 7B13; 2 CPU threads; train 70 min, prepare 3.2 s." in text


def test_a_streamed_corpus_is_not_counted(tmp_path):
    """Prevents counts that nobody took, and a file's name as a data set of the Hub."""
    stream = record(corpus={"streamed": ["books.txt", "wikimedia/wikipedia:en", "a/b.txt"]})
    facts = facts_of(saved(tmp_path / "s", stream), ID)
    assert metadata_of(facts)["datasets"] == ["wikimedia/wikipedia"]
    assert "books.txt, wikimedia/wikipedia:en, b.txt; read as a stream" in render(facts)


def test_a_fine_tuned_model_says_what_its_scores_depend_on():
    """Prevents a bare number: n, spread, share, revision, version and machine belong to it."""
    text = render(tuned())
    results = section(text, "Results")
    for words in (
        "| RTE | accuracy | 4/5 | 59.9 (57.0 to 62.1; 4/5) | 57.0 |",
        "**Share retained: 96.1 \\[94.0 to 98.2\\] %**", "1,000 times", "RTE 62.4",
        f"datasets/nyu-mll/glue/tree/{GLUE_REVISION}) at revision bcdcba7: rte validation (277",
        "angels-share 0.1.0 (commit 3ddf84a); torch 2.13.0; cpu, 2 CPU threads",
        "`python -m eval_harness tasks`", "those of seed 3",
    ):  # fmt: skip
        assert words in results
    assert "| distilbert | 20.0 |" in section(text, "Speed")
    made = section(text, "How it was fine-tuned")
    assert "seed 3, 38 s of training on cpu, 2 CPU threads" in made
    assert "at revision 12040ac" in made
    assert "| learning_rate | 3e-5 |" in made
    assert "RTE: Dagan et al. 2006" in section(text, "Citation")
    assert "sanh2019distilbert" in section(text, "Citation")


def test_two_steps_of_distillation_are_told():
    """Prevents a (D) from passing as plain fine-tuning."""
    facts = tuned()
    options = {"alpha_ce": 0.5, "alpha_task": 0.5, "temperature": 2.0, "teacher_model": "bert"}
    tuning = replace(facts.measured.fine_tuning, distillation=options)
    text = render(replace(facts, measured=replace(facts.measured, fine_tuning=tuning)))
    assert "Teacher: bert, fine-tuned." in text
    assert "0.5 x `L_ce`: the teacher's soft targets at temperature 2" in text
    tuning = replace(tuning, distillation=None)
    text = render(replace(facts, measured=replace(facts.measured, fine_tuning=tuning)))
    assert "Loss: not recorded which" in text


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (tuned(license=None), "Not recorded. It was made from [distilbert/"),
        (tuned(), "apache-2.0. It was made from [distilbert/"),
        (CardFacts(ID), "Not recorded. The data may have terms of their own."),
    ],
)
def test_the_licence_is_told_or_told_to_be_unknown(facts, words):
    """Prevents a licence by guess, and a reader who doesn't know where to look."""
    assert words in section(render(facts), "Licence")
    assert ("license" in front(render(facts))) == (facts.license is not None)


def limits_of(facts):
    return section(render(facts), "Limits")


def test_limits_name_what_was_not_measured(student):
    """Prevents silence about a score from passing for a good one."""
    missing = (
        "Not measured: the score on any task; the share of its teacher's score that it retained; "
        "speed and memory; bias; robustness; energy used."
    )
    assert missing in limits_of(student)
    assert "Not measured: bias; robustness; energy used." in limits_of(tuned())
    assert "## Results" not in render(student)
    assert "## Speed" not in render(student)


def test_limits_are_those_of_this_model(student, tmp_path):
    """Prevents an unfinished, crippled or flattered model from looking like any other."""
    cut = facts_of(saved(tmp_path / "s", record(status="interrupted", ablation="no-ce")), ID)
    assert "interrupted and is not finished" in limits_of(cut)
    assert "left out on purpose (no-ce)" in limits_of(cut)
    assert "Which languages its data are in is not recorded" in limits_of(cut)
    assert "interrupted" not in limits_of(student)
    tuning = replace(tuned().measured.fine_tuning, marks=("degenerate: one answer",))
    marked = tuned(measured=replace(tuned().measured, fine_tuning=tuning))
    assert "**These weights are marked: degenerate: one answer.**" in limits_of(marked)
    assert "marked" not in limits_of(tuned())
    assert "best seed" in limits_of(tuned(rte(here=62.1, here_text="62.1")))
    assert "best seed" not in limits_of(tuned())
    assert "Where n is 1" in limits_of(tuned(rte(seeds=1, count="1", here=None)))
    assert "Where n is 1" not in limits_of(tuned())


def test_a_student_of_no_teacher_is_not_called_distilled(tmp_path):
    """Prevents the baseline from standing among the distilled models."""
    facts = facts_of(saved(tmp_path / "s", record(teachers=[])), ID)
    assert metadata_of(facts)["tags"] == ["angels-share"]
    assert "pre-trained on text alone, without a teacher" in render(facts)


def test_a_model_without_a_record_has_a_card_too(tmp_path):
    """Prevents a card that states what no record says."""
    text = render(facts_of(saved(tmp_path / "s"), ID))
    assert "How it was made" not in text
    assert "distilled" not in text.split("## Citation")[0]


def test_an_old_or_odd_record_is_read_as_far_as_it_goes(tmp_path):
    """Prevents a stack trace on a record of another version."""
    odd = {"teachers": "bert", "recipe": [], "corpus": 3, "student": None, "step": "many",
           "versions": [1], "validation": {"eval_perplexity": "low"}, "threads": -1}  # fmt: skip
    facts = facts_of(saved(tmp_path / "s", odd, architectures="Bert", id2label=["a"]), ID)
    assert facts.pretraining == CardPretraining()
    assert render(facts)


def test_the_record_may_lie_with_the_base(tmp_path):
    """Prevents a fine-tuned student from losing how its base was distilled."""
    base = saved(tmp_path / "base", record())
    folder = saved(tmp_path / "rte", architectures=["BertForSequenceClassification"])
    text = render(facts_of(folder, ID, record=base))
    assert "## How its base was made" in text
    assert front(text)["tags"] == ["distillation", "angels-share"]
    assert "base_model" not in front(text)
