"""What the demo prints at its end: a table that is right, and sentences that claim no more."""

import importlib
import json
import re
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import made_report
import made_results as made
import numpy as np
import pytest
from example_scripts import EXAMPLES, example_module

from angels_share.ablations import ABLATIONS
from angels_share.flags import parse
from eval_harness.cli import command
from eval_harness.demo import world
from eval_harness.intervals.differences import Difference
from eval_harness.results.measures import MEASURES
from eval_harness.results.probes import ProbeResult, Shown, write, write_shown
from eval_harness.results.speed import Speeds, write_session
from eval_harness.runs.models import identify, training_of
from eval_harness.tables.probed import ProbedRow
from eval_harness.tasks.lookup import task_named

NO_TEACHER = "no teacher"
RANDOM = "triple loss, random initialization"
TERMS = ("no L_ce", "no L_cos", "no L_mlm")
OTHERS = (*TERMS, RANDOM, NO_TEACHER)


@pytest.fixture(scope="module")
def summary():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        yield importlib.import_module("summary")


@pytest.fixture(scope="module")
def demo(summary):
    with example_module("demo") as module:
        yield module


def options_of(demo, folder, name):
    """Return the options of a stage of the demo that is a command of the harness."""
    (words,) = (stage.words for stage in demo.stages(folder) if stage.name == name)
    used, words = (
        (command(words[2]), words[3:]) if words[0] == "-m" else (command("glue"), words[1:])
    )
    return parse(used.flags, words, takes_training_flags=used.takes_training_flags)


# --- the sentences


UNTOLD = {label: Difference(0.001, 0.02, 0.9) for label in TERMS}
PAYS = {RANDOM: Difference(2.127, 0.2, 1e-6), NO_TEACHER: Difference(2.613, 0.3, 1e-6)}


@pytest.fixture
def said(summary, monkeypatch, tmp_path):
    """Return a function that returns the text, given differences and Holm's p-values."""

    def text(loss, adjusted=None, told=(), sessions=()):
        """Return the text.

        Args:
            loss: the differences of the word loss.
            adjusted: their p-values; those that aren't there are 1.
            told: measure and label of whatever else can be told from chance.
            sessions: of `speed`.
        """
        everyone = ("teacher", "triple loss", *OTHERS)
        rows = [
            ProbedRow(
                label,
                {"text": [SimpleNamespace(model=made.model(label, f"{number:08x}"))]},
                is_teacher=label == "teacher",
            )
            for number, label in enumerate(everyone)
        ]
        labels = {*loss, *(label for _, label in told)}
        differences = {("loss", label): change for label, change in loss.items()}
        differences |= {key: Difference(0.5, 0.1, 1e-6) for key in told}
        values = {("loss", label): (adjusted or {}).get(label, 1.0) for label in labels}
        values |= dict.fromkeys(told, 1e-4)
        probed = SimpleNamespace(
            rows=rows, measures=MEASURES, scores={}, differences=differences, adjusted=values
        )
        ours = SimpleNamespace(probed=probed, rows=[], speeds=Speeds(sessions))
        monkeypatch.setattr(summary, "load_results", lambda *_: ours)
        return summary.Summary(tmp_path, NO_TEACHER).text()

    return text


TOLD = dict.fromkeys((RANDOM, NO_TEACHER), 1e-4)


def on_terms(text):
    """Return what is said of each term."""
    sentence = made.notes(text)[-1]
    assert sentence.startswith("What the word loss gains or loses without one term: L_ce ")
    found = dict(re.findall(r"(L_\w+) ([^;]+?)(?:; |\.$)", sentence))
    assert list(found) == ["L_ce", "L_cos", "L_mlm"]
    return found


def test_what_a_term_is_worth_is_said_with_its_interval(said):
    """Prevents a finding that is one of forty comparisons from being called one, or hidden."""
    loss = {**PAYS, **UNTOLD, "no L_ce": Difference(0.058, 0.012, 0.001),
            "no L_cos": Difference(0.058, 0.046, 0.02)}  # fmt: skip
    found = on_terms(said(loss, {**TOLD, "no L_ce": 0.049, "no L_cos": 0.05}))
    assert found["L_ce"] == "+0.058 ±0.012 (significant)"
    assert found["L_cos"] == "+0.058 ±0.046 (not significant)"
    assert found["L_mlm"] == "+0.001 ±0.020 (not significant)"


@pytest.mark.parametrize("why", ["no row", "n too small"])
def test_a_term_that_was_not_measured(said, why):
    """Prevents "not significant" where nobody looked."""
    loss = {**PAYS, **UNTOLD, "no L_ce": Difference(0.5, why="n too small")}
    if why == "no row":
        del loss["no L_ce"]
    assert on_terms(said(loss, TOLD))["L_ce"] == "not measured"


def test_the_student_is_compared_with_its_teacher_in_one_session(said):
    """Prevents sizes and times of other models than the two that the sentence names."""
    keys = [made.model(name, f"{number:08x}").key
            for number, name in enumerate(("teacher", "triple loss"))]  # fmt: skip
    session = made_report.session(("t", keys[0], 180_000, 0.12), ("s", keys[1], 108_000, 0.08))
    text = said({**PAYS, **UNTOLD}, TOLD, sessions=(session,))
    assert made.notes(text)[0] == (
        "The student has 60 % of its teacher's parameters and is 1.5 times as fast."
    )
    rows = {line[:22].strip(): line.split()[-2:] for line in text.splitlines()[2:9]}
    assert rows["teacher"] == ["0.18", "1.2"]
    assert rows["student (triple loss)"] == ["0.11", "0.8"]


def test_it_fits_a_screen_whatever_it_says(said):
    """Prevents lines that a terminal breaks in the middle of a word, and a table that scrolls away.

    The longest sentences that there are.
    """
    may_be = Difference(0.0581, 0.0461, 0.02)
    for loss, told in product(
        (dict.fromkeys(TERMS, may_be), UNTOLD), ([], [("kl", label) for label in TERMS])
    ):
        lines = said({**PAYS, **loss}, told=told).splitlines()
        assert len(lines) <= 40
        assert [line for line in lines if len(line) > 120] == []


# --- from files


TEXTS = 60
SEEDS = (11, 22, 33)
LOSS = {"triple loss": 1.4, "no L_ce": 1.5, "no L_cos": 1.4, "no L_mlm": 1.41, RANDOM: 3.5}


def write_model(folder, seed, ablation, *, has_teacher=True):
    """Write a folder with what the harness knows a pre-trained model by."""
    made.model_folder(folder, f"{folder}".encode())
    record = {
        "status": "complete",
        "ablation": ablation,
        "teachers": [{"name": "demo-teacher", "revision": None, "sha256": "1" * 64}]
        if has_teacher
        else [],
        "corpus": {"fingerprint": "2" * 16},
        "student": {"asked_for": {"student": None, "student_init": "teacher"}},
        "recipe": {"seed": seed, "alpha_ce": 5.0, "alpha_cos": 1.0, "alpha_mlm": 2.0},
    }
    (folder / "distil.json").write_text(json.dumps(record))


class Results:
    """The demo's folder with made-up models, and what its commands would have measured of them."""

    def __init__(self, demo, folder):
        self.folder, self.root = folder, folder / "results"
        asked = options_of(demo, folder, "probe")
        self.names = [asked.teacher, *asked.model]
        for name in self.names:
            (seed,) = re.findall(r"seed-(\d+)", name) or ["11"]
            kind = Path(name).name if Path(name).name in ABLATIONS else "none"
            write_model(Path(name), int(seed), kind, has_teacher=NO_TEACHER not in name)
        self.models = {name: identify(name) for name in self.names}
        self.teacher = self.models[asked.teacher]
        few_shot = options_of(demo, folder, "few-shot")
        self.student, self.random = (self.models[name] for name in few_shot.model[1:])

    def probe(self):
        """Write what `probe` measures, with a loss of its own for each kind of model."""
        keys = []
        for number, (name, model) in enumerate(self.models.items()):
            rng = np.random.default_rng(number)
            loss, agreed, right = self.level(name)
            level = loss + 0.01 * (number % 3)
            text = {
                "words": np.full(TEXTS, 2.0), "tokens": np.full(TEXTS, 4.0),
                "loss": 2 * (level + rng.normal(size=TEXTS) / 50),
                "agreed": np.full(TEXTS, 4.0 * agreed), "kl": np.full(TEXTS, 0.5 + level),
                "attended": np.full(TEXTS, 10.0), "cosine": np.full(TEXTS, 9.0),
            }  # fmt: skip
            if model is self.teacher:
                text = {name: text[name] for name in ("words", "tokens", "loss")}
            margin = {"margin": np.where(np.arange(TEXTS) < right * TEXTS, 1.0, -1.0)}
            labels = np.arange(TEXTS) % 2
            wnli = {"label": labels, "predicted": labels ^ (rng.random(TEXTS) < 0.4)}
            of_model = {}
            for probe, columns in (("text", text), ("pairs", margin), ("wnli", wnli)):
                settings = {"version": 1, "hidden": 0.15}
                settings |= (
                    {"measures": list(task_named("wnli").primary)} if probe == "wnli" else {}
                )
                result = ProbeResult(
                    model, training_of(model), probe, settings, {}, {"count": TEXTS, "train": 300},
                    made.PROVENANCE, 1.0, "2026-01-01T00:00:00",
                )  # fmt: skip
                ids = np.array([str(number) for number in range(TEXTS)], dtype=object)
                write(self.root, result, {"id": ids, **columns})
                of_model[probe] = result.key
            keys.append(of_model)
        write_shown(self.root, Shown(tuple(keys), self.teacher.key))

    def level(self, name):
        if self.models[name] is self.teacher:
            return 1.1, 1, 0.95
        if NO_TEACHER in name:
            return 4.0, 0.2, 0.5
        loss = LOSS[ABLATIONS[Path(name).name].title]
        return loss, 0.6 if loss < 3 else 0.2, 0.9 if loss < 3 else 0.5

    def few_shot(self, accuracies):
        for model, accuracy in accuracies.items():
            for task, seed in product(("cola", "mnli", "imdb"), range(5)):
                mine = accuracy + 0.01 * seed
                for each in made.seeds(mine, of=model, task=task, first=seed):
                    made.put(self.root, each, said=made.scoring(mine))

    def squad(self, f1, day=1, **given):
        for model, scores in f1.items():
            settings = made.squad_settings(**given)
            results = made.on_squad(*scores, of=model, given=settings, day=day)
            made.put(self.root, *results, said=made.answers())

    def speed(self):
        timed = (("teacher", self.teacher.key, 180_000, 0.12),
                 ("student", self.student.key, 108_000, 0.08))  # fmt: skip
        write_session(self.root, made_report.session(*timed))


@pytest.fixture(scope="module")
def results(demo, tmp_path_factory):
    made_here = Results(demo, tmp_path_factory.mktemp("demo"))
    made_here.probe()
    made_here.few_shot({made_here.teacher: 0.9, made_here.student: 0.8, made_here.random: 0.6})
    made_here.squad({made_here.teacher: (0.7, 0.8, 0.75), made_here.student: (0.5, 0.6, 0.55)})
    # (D), later: another training of the student, which is not what the row is about.
    method = made.distilled_from(made_here.teacher)
    distilled = dict.fromkeys((made_here.student, made_here.random), (0.9, 0.9, 0.9))
    made_here.squad(distilled, day=2, method=method)
    made_here.speed()
    return made_here


def table(text):
    """Return the rows by their names, each a list of cells by the columns of the header's rule."""
    header, rule, *lines = text.partition("\n\n")[0].splitlines()
    spans = [match.span() for match in re.finditer("-+", rule)]
    rows = [[line[start:end].strip() for start, end in spans] for line in (header, *lines)]
    head, *body = rows
    return {row[0]: dict(zip(head, row, strict=True)) for row in body}


def test_the_table_has_every_model_and_what_was_measured_of_it(summary, results):
    """Prevents a number in another model's row, and students that are missing for their names."""
    rows = table(summary.Summary(results.root, NO_TEACHER).text())
    assert list(rows) == [
        "teacher", "student (triple loss)", "without L_ce", "without L_cos", "without L_mlm",
        "from a random start", "no teacher",
    ]  # fmt: skip
    assert [row["n"] for row in rows.values()] == ["1", *["3"] * 6]
    student = rows["student (triple loss)"]
    assert re.fullmatch(r"1\.4\d\d", student["word loss ↓"])
    assert student["agree %"] == "60.0"
    assert student["pairs %"] == "90.0"
    assert rows["teacher"]["agree %"] == ""
    assert re.fullmatch(r"1\.1\d\d ±0\.\d\d\d\*", rows["teacher"]["word loss ↓"])
    assert re.fullmatch(r"3\.5\d\d ±0\.\d\d\d\*", rows["from a random start"]["word loss ↓"])
    assert re.fullmatch(r"4\.0\d\d ±0\.\d\d\d\*", rows["no teacher"]["word loss ↓"])
    assert re.fullmatch(r"1\.\d\d\d ±0\.\d\d\d", rows["without L_cos"]["word loss ↓"])
    assert all(re.match(r"\d+\.\d", row["WNLI probe"]) for row in rows.values())


def test_few_shot_scores_are_means_of_tasks_and_seeds(summary, results):
    """Prevents a mean over other tasks than the notes say, or of other models' runs."""
    rows = table(summary.Summary(results.root, NO_TEACHER).text())
    shown = {name: row["few-shot"] for name, row in rows.items() if row["few-shot"]}
    assert list(shown) == ["teacher", "student (triple loss)", "from a random start"]
    for name, accuracy in zip(shown, (0.9, 0.8, 0.6), strict=True):
        mean = np.mean([accuracy + 0.01 * seed for seed in range(5)])
        expected = 100 * ((2 * mean - 1) + mean + mean) / 3  # CoLA's is Matthews' correlation
        assert shown[name].split()[0] == f"{expected:.1f}"
    assert "±" not in shown["student (triple loss)"]
    assert re.search(r" ±\d+\.\d\*?$", shown["from a random start"])


def test_squad_is_of_plain_fine_tuning(summary, results):
    """Prevents the score of a student that was distilled again from standing for the student."""
    rows = table(summary.Summary(results.root, NO_TEACHER).text())
    shown = {name: row["SQuAD F1"] for name, row in rows.items() if row["SQuAD F1"]}
    assert shown == {"teacher": "75.0", "student (triple loss)": "55.0"}


def test_the_sentences_are_of_the_tables_numbers(summary, results):
    """Prevents sentences that say another thing than the table above them."""
    text = summary.Summary(results.root, NO_TEACHER).text()
    rows = table(text)
    student, distillation, _ = made.notes(text)
    low, high = (rows[name]["few-shot"].split()[0]
                 for name in ("student (triple loss)", "teacher"))  # fmt: skip
    kept = 100 * float(low) / float(high)
    found = re.fullmatch(
        r"The student has 60 % of its teacher's parameters and is 1\.5 times as fast, and keeps "
        rf"(\d+\.\d) % of its few-shot mean \({low} of {high}; from a random start \d+\.\d %\)\.",
        student,
    )  # fmt: skip
    assert found
    assert float(found[1]) == pytest.approx(kept, abs=0.2)
    loss = {name: float(row["word loss ↓"].split()[0]) for name, row in rows.items()}
    ours = loss["student (triple loss)"]
    amounts = [float(each) for each in re.findall(r"([-+]\d\.\d\d) ±", distillation)]
    random_start, alone = (loss[name] for name in ("from a random start", "no teacher"))
    assert amounts == pytest.approx([ours - random_start, random_start - alone], abs=0.006)
    assert on_terms(text)["L_ce"].startswith("+0.")


def test_the_table_fits_a_screen(summary, results):
    """Prevents a table that a terminal breaks."""
    text = summary.Summary(results.root, NO_TEACHER).text()
    lines = text.splitlines()
    assert len(lines) <= 40
    above = text.partition("\n- ")[0].splitlines()  # the sentences have a test of their own
    assert [line for line in above if len(line) > 120] == []


def test_what_is_missing_is_blank(summary, demo, tmp_path):
    """Prevents a traceback after minutes of work where one command's results don't count."""
    results = Results(demo, tmp_path)
    results.probe()
    results.few_shot({results.teacher: 0.9})
    text = summary.Summary(results.root, NO_TEACHER).text()
    for row in table(text).values():
        assert [row[name] for name in ("few-shot", "SQuAD F1", "M", "ms")] == [""] * 4
    assert "few-shot score" not in made.notes(text)[0]


# --- what it says of the demo


def test_it_shows_what_the_demo_measures(summary, demo, tmp_path):
    """Prevents a column that stays blank, and a note of other tasks than were run."""
    probe, few_shot = (options_of(demo, tmp_path, name) for name in ("probe", "few-shot"))
    known = {measure.name for measure in MEASURES} | set(probe.tasks)
    assert set(summary._SHOWN) <= known
    assert set(summary._FEW_SHOT) == set(few_shot.tasks)
    assert set(summary._NAMES) == {ablation.title for ablation in ABLATIONS.values()}
    assert demo.NO_TEACHER in {Path(name).parent.name for name in probe.model}


def test_the_notes_say_what_the_demo_does(summary, demo, tmp_path):
    """Prevents a number of examples or seeds in the notes that was changed elsewhere."""
    few_shot = options_of(demo, tmp_path, "few-shot")
    notes = " ".join(summary._NOTES.split())
    assert f"fine-tuned on {world.TRAIN} examples each" in notes
    titles = [task_named(task).title for task in few_shot.tasks]
    assert f"few-shot: {', '.join(titles[:-1])} and {titles[-1]}, fine-tuned" in notes
    assert len(few_shot.seeds) == 5
    assert "five seeds" in notes
    assert all(len(line) <= 120 for line in summary._NOTES.splitlines())
