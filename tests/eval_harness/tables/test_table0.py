"""Table 0: its layout, what stands in it and what stays blank, and the notes below it."""

import json
from dataclasses import replace

import made_results as made
import numpy as np
import pytest

from eval_harness.intervals.differences import Difference
from eval_harness.results.probes import ProbeResult, Shown, write, write_shown
from eval_harness.runs.run import Model, Training
from eval_harness.tables.formats import FORMATS
from eval_harness.tables.probed import load_probed
from eval_harness.tables.table0 import difference_text, table0
from eval_harness.tasks.lookup import task_named

COUNT = 40
FILES = {"text": ["held-out.txt"], "pairs": ["agreement.jsonl", "npi.jsonl"]}


def model(name, source=None):
    """A model; one in a folder of its own if `source` is given."""
    digest = f"{abs(sum(map(ord, source or name))):08x}"
    slug = name.replace("/", "-")
    return Model(name, slug, digest, source or f"/models/{name}")


class Study:
    """A results folder, filled result by result, in the order in which a command names models."""

    def __init__(self, root):
        self.root, self.keys, self.teacher, self.facts = root, {}, None, {}

    def put(self, of, probe, training=None, **columns):
        size = len(next(iter(columns.values())))
        columns = {"id": np.array([f"{n}" for n in range(size)], dtype=object), **columns}
        settings = {"version": 1, "content": "0123456789abcdef", "hidden": 0.15}
        facts = {"files": FILES.get(probe, []), "count": size, "train": 200, **self.facts}
        if probe == "pairs":
            facts["left_out"] = 3
        if probe not in FILES:
            settings["measures"] = list(task_named(probe).primary)
        result = ProbeResult(
            of, training, probe, settings, {}, facts, made.PROVENANCE, 1.0, "2026-01-01T00:00:00"
        )
        write(self.root, result, {name: np.asarray(values) for name, values in columns.items()})
        self.keys.setdefault(of.key, {})[probe] = result.key
        return result

    def text(self, of, loss, training=None, *, teacher=True, seed=0, **more):
        """A masked model's text: everything but the loss is far from that of others."""
        noise = np.random.default_rng(seed).normal(size=COUNT) / 50
        columns = {"words": np.full(COUNT, 2.0), "tokens": np.full(COUNT, 4.0)}
        columns["loss"] = 2 * (loss + noise)
        if teacher:
            columns |= {
                "kl": 4 * np.full(COUNT, 0.5), "agreed": np.full(COUNT, 3.0),
                "attended": np.full(COUNT, 10.0), "cosine": np.full(COUNT, 9.0),
            }  # fmt: skip
        return self.put(of, "text", training, **{**columns, **more})

    def tables(self, order=None):
        keys = self.keys if order is None else {each.key: self.keys[each.key] for each in order}
        write_shown(self.root, Shown(tuple(keys.values()), self.teacher and self.teacher.key))
        return table0(load_probed(self.root))

    def printed(self, order=None):
        """The tables as markdown, whose escaped stars are stars again."""
        written = [FORMATS["markdown"].write(table) for table in self.tables(order)]
        return [text.replace("\\*", "*") for text in written]


@pytest.fixture
def study(tmp_path):
    return Study(tmp_path)


def test_without_probes_there_is_no_table(study):
    """Prevents an empty table in every results folder."""
    assert table0(load_probed(study.root)) == []


def test_one_model_has_no_differences(study):
    """Prevents a table of differences from nothing."""
    study.text(model("alone"), 2.0, teacher=False)
    (text,) = study.printed()
    assert text.startswith("# Table 0: before any fine-tuning\n")
    ((row),) = made.grid(text)
    assert (row.keys(), row["Model"], row["n"]) == ({"Model", "n", "Word loss ↓"}, "alone", "1")
    assert float(row["Word loss ↓"]) == pytest.approx(2, abs=0.02)


@pytest.fixture
def three(study):
    """A teacher and two students, one of them without pairs."""
    teacher, first, second = map(model, ("bert", "small", "smaller"))
    random = np.random.default_rng(1)
    study.text(first, 2.0, seed=1)
    study.put(first, "pairs", margin=random.normal(size=COUNT) + 2, phenomenon=["a"] * COUNT)
    study.put(first, "cola", label=[0, 1] * 20, predicted=[0, 1] * 10 + [1, 0] * 10)
    study.text(second, 3.0, seed=2, kl=4 * np.full(COUNT, 0.75))
    study.put(second, "cola", label=[0, 1] * 20, predicted=[0, 1] * 20)
    study.text(teacher, 1.5, seed=3, kl=np.zeros(COUNT))
    study.put(teacher, "pairs", margin=random.normal(size=COUNT) + 9, phenomenon=["a"] * COUNT)
    study.put(teacher, "cola", label=[0, 1] * 20, predicted=[0, 1] * 20)
    study.teacher = teacher
    return study


def test_the_layout(three):
    """Prevents a column under another's title, and 0 where nothing was measured."""
    scores, _ = three.printed()
    rows = made.grid(scores)
    assert list(rows[0]) == [
        "Model", "n", "Pairs ↑", "CoLA ↑", "Word loss ↓", "Agreement ↑", "KL ↓ †", "Cosine ↑ †",
    ]  # fmt: skip
    assert [row["Model"] for row in rows] == ["bert", "small", "smaller"]  # the teacher first
    by_name = made.cells(scores)
    assert by_name["bert"]["Pairs ↑"] == "100.0"
    assert by_name["smaller"]["Pairs ↑"] == ""
    assert by_name["smaller"]["CoLA ↑"] == "100.0"
    assert by_name["small"]["CoLA ↑"] == "0.0"  # Matthews of one half right
    assert by_name["small"]["Agreement ↑"] == "75.0"
    assert by_name["small"]["KL ↓ †"] == "0.500"
    assert by_name["smaller"]["KL ↓ †"] == "0.750"
    assert by_name["small"]["Cosine ↑ †"] == "0.900"
    assert float(by_name["smaller"]["Word loss ↓"]) == pytest.approx(3, abs=0.02)


def test_the_teacher_is_not_compared_with_itself(three):
    """Prevents a KL of 0 and an agreement of 100 % as if they were an achievement."""
    scores, differences = three.printed()
    for name in ("Agreement ↑", "KL ↓ †", "Cosine ↑ †"):
        assert made.cells(scores)["bert"][name] == ""
        assert made.cells(differences)["bert"][name] == ""
    assert made.cells(scores)["bert"]["Word loss ↓"]


def test_differences_are_from_the_first_student(three):
    """Prevents differences from the teacher, of which nobody asks whether it is better."""
    _, text = three.printed()
    assert text.startswith("# Table 0: differences from small\n")
    rows = made.cells(text)
    assert list(rows) == ["bert", "smaller"]
    assert rows["smaller"]["Pairs ↑"] == ""
    assert rows["smaller"]["KL ↓ †"] == "+0.250 ±0.000*"
    assert rows["smaller"]["Cosine ↑ †"] == "+0.000 ±0.000"
    value, half = rows["smaller"]["Word loss ↓"].split(" ±")
    assert float(value) == pytest.approx(1, abs=0.02)
    assert half.endswith("*")
    assert 0.003 < float(half[:-1]) < 0.02
    assert rows["bert"]["Word loss ↓"].startswith("-0.5")
    _, text = three.printed(order=[model("smaller"), model("small"), model("bert")])
    assert text.startswith("# Table 0: differences from smaller\n")
    assert made.cells(text)["small"]["KL ↓ †"] == "-0.250 ±0.000*"


def test_the_notes(three):
    """Prevents numbers of which nobody can say what they are of, or what trained them."""
    scores, differences = three.printed()
    notes = made.notes(scores)
    of_text = made.note(scores, "Word loss")
    assert of_text.startswith("Word loss: nats per hidden word of 40 texts of held-out.txt")
    assert "the same 15 % of the words" in of_text
    assert [note for note in notes if "Agreement, KL" in note and "Cosine: with bert" in note]
    assert made.note(scores, "Pairs") == (
        "Pairs: % of 40 pairs of agreement.jsonl, npi.jsonl (3 that differ in more than a word "
        "are left out) of which the model finds the good sentence likelier; 50 is chance."
    )
    assert "fitted to 200 examples" in made.note(scores, "CoLA")
    assert not [note for note in notes if note.startswith(("n:", "Perplexity", "Not counted"))]
    for text in (scores, differences):
        assert made.note(text, "†").startswith("† KL and cosine are what distillation itself")
    assert "± half of the 95 % interval" in made.note(differences, "Differences from small")
    count = sum(
        "±" in cell for row in made.grid(differences) for cell in row.values()
    )  # fmt: skip
    assert f"for all {count} differences of this table" in made.note(differences, "*")


def test_without_a_teacher_there_is_no_word_of_one(study):
    """Prevents notes and marks of columns that aren't there."""
    study.text(model("small"), 2.0, teacher=False)
    study.text(model("smaller"), 3.0, teacher=False)
    scores, differences = study.printed()
    assert "†" not in scores + differences
    assert "Agreement" not in scores
    assert "Pairs" not in scores


def causal(study, of, surprisal, **more):
    tokens = np.full(COUNT, 8.0)
    study.put(of, "text", tokens=tokens, surprisal=8 * np.full(COUNT, surprisal), **more)


def test_causal_models_have_a_perplexity(study):
    """Prevents a perplexity that is a loss, or one that passes for comparable across tokenizers."""
    causal(study, model("gpt2"), np.log(20))
    causal(study, model("distilgpt2"), np.log(25))
    scores, differences = study.printed()
    assert made.cells(scores)["gpt2"] == {"Model": "gpt2", "n": "1", "Perplexity ↓": "20.00"}
    assert made.cells(differences)["distilgpt2"]["Perplexity ↓"].startswith("+5.00 ±0.00")
    assert "only models with one tokenizer" in made.note(scores, "Perplexity")
    assert not [note for note in made.notes(scores) if "hidden" in note]


def test_causal_models_with_a_teacher_have_no_hidden_words(study):
    """Prevents a note on a word loss, and on hidden words, where a model hides none."""
    study.teacher = model("gpt2")
    for name in ("gpt2", "distilgpt2"):
        ones = np.ones(COUNT)
        causal(study, model(name), 3, kl=ones, agreed=ones, attended=ones, cosine=ones)
    scores, _ = study.printed()
    assert "Cosine: with gpt2" in " ".join(made.notes(scores))
    assert "Word loss" not in scores
    assert "hidden word" not in scores


def test_a_star_is_holms(study):
    """Prevents a star for the smallest of many differences that chance made.

    Each of four differences alone has a p of about .03; together none can be told from chance.
    """
    first, *others = [model(f"student-{name}") for name in "abcde"]
    wave = np.tile([1.0, -1.0], COUNT // 2)
    words = {"words": np.ones(COUNT), "tokens": np.ones(COUNT)}
    study.put(first, "text", loss=np.zeros(COUNT) + 5, **words)
    for number, each in enumerate(others):
        random = np.random.default_rng(number).permutation(wave)
        study.put(each, "text", loss=5 + random + 2.2 / np.sqrt(COUNT), **words)
    _, text = study.printed()
    assert made.note(text, "*").startswith("*: significant: p below .05 after Holm's")
    assert "for all 4 differences" in made.note(text, "*")
    assert len(made.grid(text)) == 4
    assert not [row for row in made.grid(text) if "*" in row["Word loss ↓"]]
    table = json.loads(FORMATS["json"].write(study.tables()[1]))
    for row in table["rows"]:
        cell = row["Word loss ↓"]
        assert cell["p"] < 0.05 < cell["holm"]
        low, high = cell["interval"]
        assert 0 < low < cell["number"] < high
    _, text = study.printed(order=[first, others[0]])
    assert made.grid(text)[0]["Word loss ↓"].endswith("*")


def seeds_of(study, name, losses, group, first=1):
    for seed, loss in enumerate(losses, first):
        of = model(f"{name}-{seed}", source=f"/models/{name}-seed{seed}")
        study.text(of, loss, Training(group, seed), teacher=False, seed=seed)


def test_seeds_of_one_training_are_one_row(study):
    """Prevents three rows of one recipe, whose luck passes for a difference of recipes."""
    seeds_of(study, "kept", [2.0, 2.1, 2.3], "a" * 16)
    seeds_of(study, "cut", [3.0, 3.1, 3.3], "b" * 16)
    study.text(model("other"), 2.5, teacher=False, seed=9)
    scores, differences = study.printed()
    rows = made.cells(scores)
    assert {name: row["n"] for name, row in rows.items()} == {"kept": "3", "cut": "3", "other": "1"}
    assert float(rows["kept"]["Word loss ↓"]) == pytest.approx(6.4 / 3, abs=0.01)
    assert made.note(scores, "n:").startswith("n: models that differ only in the seed")
    change = made.cells(differences)["cut"]["Word loss ↓"]
    assert change == "+1.000 ±0.000*"  # paired by seed, and of the same noise: no luck remains
    alone = made.cells(differences)["other"]["Word loss ↓"]
    assert 0.3 < float(alone.split(" ±")[1].rstrip("*")) < 0.5  # t of three: 4.3 x 0.153 / sqrt(3)
    table = json.loads(FORMATS["json"].write(study.tables()[0]))
    (cell,) = [each["Word loss ↓"] for each in table["rows"] if each["Model"]["text"] == "kept"]
    assert list(cell["seeds"]) == ["1", "2", "3"]
    assert np.mean(list(cell["seeds"].values())) == pytest.approx(cell["number"])


def test_two_seeds_have_no_interval(study):
    """Prevents an interval thirteen standard errors wide, and a star where n is too small."""
    seeds_of(study, "kept", [2.0, 2.1, 2.2], "a" * 16)
    seeds_of(study, "cut", [3.0, 3.1], "b" * 16)
    _, text = study.printed()
    change = made.cells(text)["cut"]
    assert change["n"] == "2"
    value, why = change["Word loss ↓"].split(" ", 1)
    assert float(value) == pytest.approx(0.95, abs=0.01)
    assert why == "(n too small)"
    assert "for all 0 differences" in made.note(text, "*")
    cell = json.loads(FORMATS["json"].write(study.tables()[1]))["rows"][0]["Word loss ↓"]
    assert cell["why"] == "n too small"
    assert "p" not in cell


@pytest.mark.parametrize(
    ("folders", "label"),
    [
        (["small-seed1", "small-seed2"], "small"),
        (["small_seed_1", "small_seed_2"], "small"),
        (["small-1", "small-2"], "small"),
        (["small/seed-1", "small/seed-2"], "small"),
        (["study/seed-1/no-ce", "study/seed-2/no-ce"], "no L_ce"),
        (["study/seed-1/none", "study/seed-2/none"], "triple loss"),
        (["seed-1", "seed-2"], "models"),
        (["v2-1", "v2-2"], "v2"),
        (["one", "another"], "one"),
    ],
)
def test_the_label_of_seeds_names_no_seed(study, folders, label):
    """Prevents a row of several seeds under the name of one of them, or under no name."""
    for seed, folder in enumerate(folders, 1):
        of = model(folder.replace("/", "-"), source=f"/models/{folder}")
        study.text(of, 2.0, Training("a" * 16, seed), teacher=False)
    (scores,) = study.printed()
    assert list(made.cells(scores)) == [label]


def test_one_seed_alone_keeps_its_name(study):
    """Prevents `small-11`, which is a model of its own, from being called `small`."""
    study.text(model("small-11"), 2.0, Training("a" * 16, 11), teacher=False)
    (scores,) = study.printed()
    assert list(made.cells(scores)) == ["small-11"]


def test_groups_of_one_label_are_told_apart(study):
    """Prevents rows that can't be told apart, of which one would hide the other."""
    seeds_of(study, "one/small", [2.0, 2.0], "a" * 16)
    seeds_of(study, "two/small", [3.0, 3.0], "b" * 16)
    scores, _ = study.printed()
    assert list(made.cells(scores)) == ["small", "small (bbbbbbbb)"]


def test_a_teacher_with_a_seed_is_a_row_of_its_own(study):
    """Prevents a teacher that was itself distilled from being averaged with its brothers."""
    seeds_of(study, "small", [2.0, 2.1, 2.2], "a" * 16)
    study.teacher = model("small-2", source="/models/small-seed2")
    scores, differences = study.printed()
    rows = made.grid(scores)
    assert [(row["Model"], row["n"]) for row in rows] == [("small-2", "1"), ("small", "2")]
    assert differences.startswith("# Table 0: differences from small\n")


def test_files_that_do_not_count_are_named(three):
    """Prevents a row that silently lacks a number which was measured."""
    key = three.keys[model("small").key]["cola"]
    path = three.root / "probes" / f"{key}.json"
    path.write_text("{")
    scores, _ = three.printed()
    assert made.cells(scores)["small"]["CoLA ↑"] == ""
    assert made.note(scores, "Not counted").startswith(f"Not counted: probes/{key}.json: is torn")
    (three.root / "probes" / "table.json").write_text("{")
    (only,) = [FORMATS["markdown"].write(table) for table in table0(load_probed(three.root))]
    assert made.note(only, "Not counted").startswith("Not counted: probes/table.json: is torn")


def test_a_score_that_is_undefined_is_blank(study):
    """Prevents `nan` in a table, and a table that fails on it."""
    constant = {"label": np.linspace(0, 5, COUNT), "predicted": np.ones(COUNT)}
    study.text(model("small"), 2.0, teacher=False)
    study.put(model("small"), "stsb", **constant)
    study.put(model("smaller"), "stsb", **{**constant, "predicted": constant["label"]})
    scores, *_ = study.printed()
    assert made.cells(scores)["small"]["STS-B ↑"] == ""
    assert made.cells(scores)["smaller"]["STS-B ↑"] == "100.0"
    assert "nan" not in scores


def test_the_same_files_give_the_same_table(three):
    """Prevents intervals that change each time that a table is made."""
    assert three.printed() == three.printed()


def test_every_format_has_the_numbers(three):
    """Prevents a format that loses a mark or the numbers behind the cells."""
    scores, differences = three.tables()
    assert "0.750" in FORMATS["csv"].write(scores)
    assert "+0.250 ±0.000*" in FORMATS["csv"].write(differences)
    assert "+0.250 ±0.000*" in FORMATS["latex"].write(differences)
    rows = json.loads(FORMATS["json"].write(differences))["rows"]
    (cell,) = [row["KL ↓ †"] for row in rows if row["Model"]["text"] == "smaller"]
    assert cell == {
        "text": "+0.250 ±0.000*", "number": 0.25, "interval": [0.25, 0.25], "p": 0.0, "holm": 0.0,
    }  # fmt: skip


def test_a_copy_of_a_student_is_no_second_seed(study):
    """Prevents one model under two names from passing for two seeds, with half the uncertainty."""
    for name in ("small", "copy-of-small", "third"):
        of = replace(model(name), weights="0" * 64)
        study.text(of, 2.0, Training("a" * 16, 1), teacher=False)
    scores, *_ = study.printed()
    assert {row["n"] for row in made.grid(scores)} == {"1"}


def test_no_difference_has_no_sign_of_its_own():
    """Prevents `-0.0`, which reads as a loss."""
    assert difference_text(Difference(-0.0004, 0.1, 0.9), 1, told=False) == "+0.0 ±0.1"


def test_perplexities_of_two_tokenizers_are_not_set_against_each_other(study):
    """Prevents a star for the tokenizer that cuts words into more tokens."""
    causal(study, model("gpt2"), np.log(20))
    columns = {"tokens": np.full(COUNT, 4.0), "surprisal": 4 * np.full(COUNT, np.log(90))}
    study.put(model("distilgpt2"), "text", **columns)
    _, differences = study.printed()
    cell = made.cells(differences)["distilgpt2"]["Perplexity ↓"]
    assert cell == "+70.00 (other tokenizer)"


def test_stand_in_data_are_named_first(study):
    """Prevents probes of something made up from looking like those of the real task."""
    labels = np.arange(COUNT) % 2
    study.facts = {"name": "demo world (made up)"}
    for name in ("a", "b"):
        study.put(model(name), "cola", label=labels, predicted=labels)
    for text in study.printed():
        assert made.notes(text)[0] == "Stand-in data: demo world (made up)."
