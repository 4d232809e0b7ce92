"""`python -m eval_harness probe`, end to end on tiny models: what it measures, keeps and prints."""

import json
import shutil

import made_results as made
import pytest
import tiny
import worlds

from angels_share.cli import run_command
from angels_share.flags import parse
from eval_harness.commands.probe import COMMAND as PROBE
from eval_harness.commands.tables import COMMAND as TABLES
from eval_harness.probe import measure
from eval_harness.probe.request import request_of

PAIRS = (
    ("the angels share the barrels", "the angel share the barrels"),
    ("every student learns fast", "every student learn fast"),
    ("the river sleep dark", "the rivers sleep dark"),
    ("old barrels sleep", "old barrels share every year"),  # more than a word
)
TEXT_COLUMNS = ["Word loss ↓", "Agreement ↑", "KL ↓ †", "Cosine ↑ †"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A teacher, students, a causal model, and the data of every probe."""
    root = tmp_path_factory.mktemp("world")
    worlds.glue_folder(root / "glue", train=24, dev=16)
    tokenizer, bold = tiny.wordpiece(worlds.WORDS), {"initializer_range": 0.3}
    tiny.folder(root / "bert", tiny.bert(2, **bold), tokenizer)
    for seed in (1, 2, 3):
        network = tiny.distilbert(1, seed=seed, **bold)
        tiny.folder(root / f"small-{seed}", network, tokenizer)
    tiny.folder(root / "encoder", tiny.bert(1, model_class=_encoder(), **bold), tokenizer)
    tiny.folder(root / "gpt2", tiny.gpt2(1, **bold), tiny.byte_bpe())
    lines = [f"{' '.join(worlds.WORDS[n:])} {n}" for n in range(10)]
    (root / "held-out.txt").write_text("\n".join(["", "--", *lines, "  "]) + "\n")
    (root / "other.txt").write_text("\n".join(reversed(lines)) + "\n")
    rows = [{"sentence_good": a, "sentence_bad": b, "UID": "made"} for a, b in PAIRS]
    (root / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "no-pairs.jsonl").write_text(json.dumps(rows[-1]) + "\n")
    (root / "blank.txt").write_text("\n--\n  \n")
    return root


def _encoder():
    import transformers

    return transformers.BertModel


@pytest.fixture
def probe(world, tmp_path, capsys):
    """Runs the command; short words that are names in the world stand for their paths."""

    def run(*words, status=0, results="results"):
        given = [str(world / word) if (world / word).exists() else word for word in words]
        found = run_command(PROBE, [*given, "--results_dir", str(tmp_path / results)])
        captured = capsys.readouterr()
        assert found == status, captured.err
        return captured.err if status else captured.out

    run.results = tmp_path / "results"
    return run


ALL = ("--text", "held-out.txt", "--pairs", "pairs.jsonl", "--tasks", "cola", "stsb",
       "--data_dir", "glue")  # fmt: skip
SHORT = ("--text", "held-out.txt")


def files(root):
    """The results and examples that are there, with the time of each."""
    paths = sorted((root / "probes").rglob("*-*/*"))
    return {path.relative_to(root / "probes").as_posix(): path.stat().st_mtime_ns for path in paths}


def columns_of(text):
    return list(made.grid(text.split("# ")[1])[0])


def test_the_command_measures_and_prints(probe):
    """Prevents a command whose parts fit nowhere."""
    text = probe("--model", "small-1", "small-2", "--teacher", "bert", *ALL)
    assert "# Table 0: before any fine-tuning" in text
    assert "# Table 0: differences from small-1" in text
    scores, differences = text.split("# ")[1:]
    assert columns_of(text) == ["Model", "n", "Pairs ↑", "CoLA ↑", "STS-B ↑", *TEXT_COLUMNS]
    rows = made.cells(scores)
    assert list(rows) == ["bert", "small-1", "small-2"]
    assert all(all(row.values()) for name, row in rows.items() if name != "bert")
    assert list(made.cells(differences)) == ["bert", "small-2"]
    assert "10 texts of held-out.txt" in made.note(scores, "Word loss")  # those with words
    assert "3 pairs of pairs.jsonl (1 that differ" in made.note(scores, "Pairs")
    for name in ("table0.md", "table0-differences.md"):
        assert (probe.results / name).read_text() in text
    assert len([name for name in files(probe.results) if name.endswith(".json")]) == 12
    assert len(files(probe.results)) == 24


def test_what_is_there_is_not_measured_again(probe, monkeypatch):
    """Prevents minutes of measuring for a table that could be printed at once."""
    words = ("--model", "small-1", "--teacher", "bert", *ALL)
    first = probe(*words)
    before = files(probe.results)
    monkeypatch.setattr("eval_harness.probe.session.load", refuse)
    assert probe(*words) == first
    assert probe(*words, "--batch_size", "3") == first
    assert files(probe.results) == before
    # A model more: it alone is measured, and the teacher is loaded for it.
    monkeypatch.undo()
    probe("--model", "small-1", "small-2", "--teacher", "bert", *ALL)
    assert {name: files(probe.results)[name] for name in before} == before


def refuse(*_):
    raise AssertionError("measured again")


def test_rerun_always(probe):
    """Prevents a flag that does nothing, and files that pile up."""
    first = probe("--model", "small-1", *SHORT)
    before = files(probe.results)
    assert probe("--model", "small-1", *SHORT, "--rerun", "always") == first
    after = files(probe.results)
    assert before.keys() == after.keys()
    assert all(after[name] > before[name] for name in before)


def test_what_changes_a_number_changes_the_key(world):
    """Prevents numbers of one text, seed, length or teacher from standing under another's."""

    def keys(*words, model="small-1"):
        given = [str(world / word) if (world / word).exists() else word for word in words]
        given = ["--model", str(world / model), *given]
        request = request_of(parse(PROBE.flags, given, takes_training_flags=False))
        return request.keys_of(request.subjects[-1].model)

    usual = keys(*ALL)
    assert set(usual) == {"text", "pairs", "cola", "stsb"}
    changed = {
        ("--text", "other.txt"): {"text"},
        ("--seed", "1"): {"text"},
        ("--teacher", "bert"): {"text"},
        ("--teacher", "small-2"): {"text"},
        ("--limit", "2"): set(usual),
        ("--max_seq_length", "64"): set(usual),
        ("--batch_size", "3"): set(),
        ("--device", "cuda"): set(),
    }
    seen = {tuple(sorted(usual.items()))}
    for words, expected in changed.items():
        found = keys(*ALL, *words) if words[0] != "--text" else keys(*ALL[2:], *words)
        assert {name for name in usual if usual[name] != found[name]} == expected, words
        seen.add(tuple(sorted(found.items())))
    assert len(seen) == 7
    assert not set(keys(*ALL, model="small-2").values()) & set(usual.values())


def test_models_that_are_the_same_differ_by_nothing(world, probe, tmp_path):
    """Prevents a difference that comes from a name, an order, or a batch.

    One model has only another name; of the other the weights are the same and its files are not.
    """
    for name in ("copied", "resaved"):
        shutil.copytree(world / "small-1", tmp_path / name)
    config = tmp_path / "resaved" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()), indent=7))
    copies = [str(tmp_path / name) for name in ("copied", "resaved")]
    words = ("--model", "small-1", *copies, "--teacher", "bert", *ALL, "--format", "json")
    scores, differences = parsed(probe(*words))
    assert len({row["Model"]["text"] for row in scores["rows"]}) == 4
    values = [[cell["number"] for cell in list(row.values())[2:]] for row in scores["rows"][1:]]
    assert values[0] == values[1] == values[2]
    rows = {row["Model"]["text"]: row for row in differences["rows"]}
    for name in ("copied", "resaved"):
        cells = list(rows[name].values())[2:]
        assert len(cells) == 7
        for cell in cells:
            assert (cell["number"], cell["interval"], cell["p"]) == (0, [0, 0], 1)
            assert "*" not in cell["text"]
    others = list(rows["bert"].values())[2:]
    assert any(cell and cell["number"] != 0 for cell in others)


def parsed(text):
    """The tables of a command's JSON."""
    decoder, tables = json.JSONDecoder(), []
    while text.strip():
        table, end = decoder.raw_decode(text.lstrip())
        tables.append(table)
        text = text.lstrip()[end:]
    return tables


def test_a_teacher_that_is_also_a_model(probe, monkeypatch):
    """Prevents a model that is loaded or measured twice, or is two rows."""
    loaded = []

    def counted(model, device):
        loaded.append(model.name)
        return measure.load(model, device)

    monkeypatch.setattr("eval_harness.probe.session.load", counted)
    text = probe("--model", "bert", "small-1", "--teacher", "bert", *SHORT)
    assert list(made.cells(text.split("# ")[1])) == ["bert", "small-1"]
    assert sorted(loaded) == ["bert", "small-1"]
    text = probe("--model", "bert", "--teacher", "bert", *SHORT)
    assert list(made.cells(text)) == ["bert"]


def test_a_table_of_fewer_models_replaces_the_differences(probe):
    """Prevents differences of an earlier command from lying beside a table without them."""
    assert "differences from" in probe("--model", "small-1", "small-2", *SHORT)
    assert "differences from" not in probe("--model", "small-1", *SHORT)
    assert not (probe.results / "table0-differences.md").exists()


@pytest.mark.parametrize("ending", [".json", ".parquet"])
def test_a_damaged_file_is_named_and_measured_again(probe, capsys, ending):
    """Prevents a number that is gone for good, or one of half a file."""
    first = probe("--model", "small-1", "small-2", *SHORT)
    path = next((probe.results / "probes").glob(f"small-1-*/*{ending}"))
    path.write_bytes(path.read_bytes()[:-20])
    capsys.readouterr()
    assert run_command(TABLES, ["--results_dir", str(probe.results)]) == 0
    table = capsys.readouterr().out.split("# ")[1]
    name = path.relative_to(probe.results).as_posix()
    assert made.note(table, "Not counted").startswith(f"Not counted: {name}: is ")
    assert list(made.cells(table)) == ["small-2"]
    assert probe("--model", "small-1", "small-2", *SHORT) == first


def test_examples_that_are_gone_are_measured_again(probe):
    """Prevents a table that lacks a model until somebody thinks of `--rerun always`."""
    first = probe("--model", "small-1", *SHORT)
    next((probe.results / "probes").glob("small-1-*/*.parquet")).unlink()
    assert probe("--model", "small-1", *SHORT) == first


def test_a_model_that_fails_keeps_the_others(world, probe, tmp_path):
    """Prevents a mistake in the last model from costing the measurements of all."""
    shutil.copytree(world / "small-1", tmp_path / "broken")
    config = tmp_path / "broken" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "n_layers": 2}))
    error = probe("--model", "small-1", str(tmp_path / "broken"), *SHORT, status=2)
    assert "broken: its weights do not fit its config.json" in error
    assert error.count("\n") == 1
    assert len(files(probe.results)) == 2


def test_models_of_every_kind_side_by_side(probe):
    """Prevents one model without a head, or of another kind, from stopping the rest."""
    text = probe("--model", "small-1", "encoder", "gpt2", "--teacher", "bert", *ALL)
    rows = made.cells(text.split("# ")[1])
    assert columns_of(text)[5:] == ["Word loss ↓", "Perplexity ↓", *TEXT_COLUMNS[1:]]
    blank = {
        name: {column for column, cell in row.items() if not cell} for name, row in rows.items()
    }
    assert blank["small-1"] == {"Perplexity ↓"}
    assert blank["gpt2"] == set(TEXT_COLUMNS)
    assert blank["bert"] == {"Perplexity ↓", *TEXT_COLUMNS[1:]}
    assert blank["encoder"] == {
        "Pairs ↑", "Word loss ↓", "Perplexity ↓", "Agreement ↑", "KL ↓ †",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "nothing to measure: add --text FILES, --pairs FILES or --tasks NAMES"),
        (("--teacher", "bert", "--pairs", "pairs.jsonl"), "--teacher is compared on held-out text"),
        (("--data_dir", "glue", *SHORT), "--data_dir holds the data of tasks: add --tasks NAMES"),
        (("--tasks", "squad"), "--tasks squad: there are no linear probes for its kind"),
        (("--tasks", "cloa", "--data_dir", "glue"), "unknown task 'cloa'; did you mean 'cola'?"),
        (("--text", "blank.txt"), "blank.txt: holds no word"),
        (("--text", "held-out.txt", "blank.txt"), "blank.txt: holds no word"),
        (("--text", "glue"), "a folder; name its files"),
        (("--text", "nowhere.txt"), "nowhere.txt: No such file"),
        (("--text", "pairs.jsonl"), "no column 'text'"),
        (("--pairs", "no-pairs.jsonl"), "no pair of it differs in exactly one word"),
        (("--pairs", "held-out.txt"), "unsupported file type"),
        (("--tasks", "rte", "--data_dir", "nowhere"), "nowhere"),
        ((*SHORT, "--limit", "0"), "--limit"),
        ((*SHORT, "--seed", "-1"), "--seed"),
        ((*SHORT, "--device", "tpu"), "expected one of cpu, cuda"),
        ((*SHORT, "--teacher", "brt"), "brt"),
    ],
)
def test_mistakes_are_told_before_any_work(probe, monkeypatch, words, said):
    """Prevents minutes of measuring that end in what could have been said at once."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("eval_harness.probe.session.load", refuse)
    error = probe("--model", "small-1", *words, status=2)
    assert said in error
    assert error.count("\n") == 1
    assert not (probe.results / "probes").exists()


@pytest.mark.parametrize("name", ["text", "pairs", "loss", "kl"])
def test_a_task_with_the_name_of_a_measure(world, probe, tmp_path, capsys, name):
    """Prevents a user's own task from being shown as the held-out text, or instead of it.

    To refuse the name is as good as to tell the two apart.
    """
    rows = [{"sentence": word, "label": "ab"[n % 2]} for n, word in enumerate(worlds.WORDS)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = tmp_path / "own.yaml"
    own.write_text(
        f"name: {name}\ncolumns: [sentence]\nlabels: [a, b]\nprimary: [accuracy]\ntitle: Own\n"
        "files: {train: own.jsonl, validation: own.jsonl}\n"
    )
    words = ["--model", "small-1", "--teacher", "bert", *ALL[:4]]
    given = [str(world / word) if (world / word).exists() else word for word in words]
    given += ["--tasks", str(own), "--results_dir", str(probe.results), "--format", "json"]
    status = run_command(PROBE, given)
    captured = capsys.readouterr()
    if status == 2:
        assert captured.err.count("\n") == 1
        assert repr(name) in captured.err
        return
    assert status == 0, captured.err
    row = parsed(captured.out)[0]["rows"][1]
    known = {"Model", "n", "Pairs ↑", *TEXT_COLUMNS}
    assert known < row.keys()
    (own,) = row.keys() - known
    right = row[own]["number"] / 100 * len(rows)  # the task's accuracy, of so many examples
    assert right == pytest.approx(round(right), abs=1e-9)
    assert row["Word loss ↓"]["number"] > 0


def a_record(seed, **recipe):
    """The record of a student's training, in the shape that `run_pretrain_distill` writes."""
    asked = {"student": None, "student_init": "teacher", "student_layers": None, "num_layers": 1,
             "architecture": None, "copy_head_transform": False, "fold_token_types": False,
             "freeze_pos_embs": False}  # fmt: skip
    teacher = {"name": "/models/bert", "source": "/models/bert", "revision": None, "sha256": "ab"}
    return {
        "status": "complete",
        "step": 10,
        "recipe": {"learning_rate": 5e-4, "alpha_ce": 5.0, "alpha_mlm": 2.0, "alpha_cos": 1.0,
                   "temperature": 2.0, "seed": seed, "student": f"{seed:016x}", "data": "cd",
                   "teachers": ["ef"], **recipe},
        "validation_history": [{"eval_loss": 3.0 + seed}],
        "times": {"training": 1.0 * seed},
        "ablation": "none",
        "teachers": [teacher],
        "corpus": {"fingerprint": "0123", "sources": [], "tally": {}},
        "student": {"class": "DistilBertForMaskedLM", "layers_of_the_teacher": [0],
                    "asked_for": asked},
        "validation": {"eval_loss": 3.0 + seed},
    }  # fmt: skip


def students(world, folder, seeds=(1, 2, 3), name="student", **recipe):
    paths = []
    for seed in seeds:
        path = folder / f"{name}-seed{seed}"
        shutil.copytree(world / f"small-{seed}", path)
        (path / "distil.json").write_text(json.dumps(a_record(seed, **recipe)))
        paths.append(str(path))
    return paths


def test_seeds_of_one_training_become_one_row(world, probe, tmp_path):
    """Prevents three models of one recipe from being compared as if they were three recipes."""
    paths = students(world, tmp_path)
    found = probe("--model", *paths, "--teacher", "bert", *ALL, "--format", "json")
    scores, differences = parsed(found)
    assert [row["Model"]["text"] for row in scores["rows"]] == ["bert", "student"]
    assert [row["n"]["number"] for row in scores["rows"]] == [1, 3]
    each = [
        parsed(probe("--model", f"small-{seed}", "--teacher", "bert", *ALL, "--format", "json"))[0]
        for seed in (1, 2, 3)
    ]
    for column in scores["columns"][2:]:
        cell = scores["rows"][1][column]
        alone = [table["rows"][1][column]["number"] for table in each]
        assert list(cell["seeds"].values()) == alone
        assert cell["number"] == pytest.approx(sum(alone) / 3)
    assert differences["title"] == "Table 0: differences from student"
    # Another recipe is another row, and two seeds are too few.
    more = students(world, tmp_path, (1, 2), "faster", learning_rate=1e-3)
    found = probe("--model", *paths, *more, *SHORT)
    rows = made.cells(found.split("# ")[1])
    assert {name: row["n"] for name, row in rows.items()} == {"student": "3", "faster": "2"}
    assert found.count("(n too small)") == 1


def test_a_copy_of_a_seed_is_no_further_seed(world, probe, tmp_path):
    """Prevents copies of one student, record and all, from passing for three that agree."""
    paths = students(world, tmp_path, (1,))
    for name in ("copied", "again"):
        shutil.copytree(paths[0], tmp_path / name)
        paths.append(str(tmp_path / name))
    found = probe("--model", *paths, *SHORT)
    assert {row["n"] for row in made.grid(found.split("# ")[1])} == {"1"}


@pytest.mark.parametrize(
    ("form", "suffix", "mark"),
    [
        ("csv", ".csv", "Model,n,Pairs ↑"),
        ("latex", ".tex", "\\begin{tabular}"),
        ("json", ".json", "{"),
    ],
)
def test_every_format_has_the_numbers(probe, form, suffix, mark):
    """Prevents a format that prints the titles alone, or another table's numbers."""
    words = ("--model", "small-1", "small-2", "--teacher", "bert", *ALL)
    markdown = probe(*words)
    text = probe(*words, "--format", form)
    assert mark in text
    for cells in made.grid(markdown.split("# ")[1]) + made.grid(markdown.split("# ")[2]):
        for cell in cells.values():
            assert cell.replace("\\*", "*") in text
    for name in ("table0", "table0-differences"):
        assert (probe.results / f"{name}{suffix}").read_text() in text


def test_nothing_heavy_is_imported_where_all_is_there(world, probe, run_script):
    """Prevents seconds of imports, and a need of torch, to print what is on the disk."""
    words = ["--model", str(world / "small-1"), str(world / "small-2"), "--text",
             str(world / "held-out.txt"), "--results_dir", str(probe.results)]  # fmt: skip
    code = (
        "import sys\n"
        "from angels_share.cli import run_command\n"
        "from eval_harness.commands.probe import COMMAND\n"
        f"status = run_command(COMMAND, {words!r})\n"
        "print([name for name in ('torch', 'transformers', 'sklearn', 'datasets') "
        "if name in sys.modules])\n"
        "raise SystemExit(status)"
    )
    first = probe(*words[:-2])
    found = run_script("-c", code)
    assert found.returncode == 0, found.stderr
    assert found.stdout == f"{first}[]\n"
