"""`python -m distil_trainer export` against onnxruntime itself, which reads what we wrote."""

import json

import numpy as np
import pytest
import tiny
import torch
import transformers

from angels_share.cli import run_command
from angels_share.files import sha256_of_file
from distil_trainer.commands import export as command

ort = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
pytest.importorskip("onnxscript", reason="the extra `export` is not installed")

from distil_trainer.smaller import export as work  # noqa: E402
from distil_trainer.smaller import onnx_file  # noqa: E402
from distil_trainer.smaller.compared import Comparison, said  # noqa: E402

CLASSIFIER = transformers.BertForSequenceClassification


def export(folder, *words):
    return run_command(command.COMMAND, [str(folder), *map(str, words)])


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A classifier's folder, exported in float32 and int8, and the rows it was checked on."""
    world = tmp_path_factory.mktemp("exported")
    tiny.folder(world / "model", tiny.shaken(tiny.bert(model_class=CLASSIFIER)), tiny.wordpiece())
    lines = [line.replace(",", "") for line in tiny.LINES]
    (world / "rows.csv").write_text("\n".join(["sentence", *lines]))
    words = ["--quantize", "int8", "--check", str(world / "rows.csv"), "--least_agreement", "0"]
    assert export(world / "model", *words) == 0
    return world / "model"


def run_alone(path, **batch):
    """What onnxruntime gives, without any of our code."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return session.run(None, {name: batch[name] for name in names})


def test_the_layout_is_what_transformers_js_reads(exported):
    """Prevents files beside the weights that a browser's library doesn't find, or weights apart."""
    assert sorted(path.name for path in (exported / "onnx").iterdir()) == [
        "model.onnx",
        "model_quantized.onnx",
    ]
    assert {"config.json", "tokenizer.json", "tokenizer_config.json"} <= {
        path.name for path in exported.iterdir()
    }


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 17), (5, 64)])
def test_any_batch_of_any_length(exported, shape):
    """Prevents a file that only takes the batch it was traced with, or that reads padding."""
    model = CLASSIFIER.from_pretrained(exported).eval()
    rng = np.random.default_rng(0)
    ids = rng.integers(5, 150, shape)
    mask = np.ones_like(ids)
    mask[-1, max(1, shape[1] // 2) :] = 0
    (found,) = run_alone(
        exported / "onnx" / "model.onnx",
        input_ids=ids,
        attention_mask=mask,
        token_type_ids=np.zeros_like(ids),
    )
    with torch.no_grad():
        expected = model(torch.tensor(ids), torch.tensor(mask)).logits.numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_dimensions_and_outputs_have_their_usual_names(exported):
    """Prevents a mask whose batch is another symbol than that of the ids."""
    session = ort.InferenceSession(str(exported / "onnx" / "model.onnx"))
    names = ("input_ids", "attention_mask", "token_type_ids")
    found = {each.name: each.shape for each in session.get_inputs()}
    assert found == {name: ["batch", "sequence"] for name in names}
    assert [(each.name, each.shape) for each in session.get_outputs()] == [("logits", ["batch", 2])]


def test_the_record_says_what_was_compared(exported):
    """Prevents an int8 file whose cost nobody wrote down."""
    float32, int8 = json.loads((exported / "distil.json").read_text())["lineage"]
    assert (float32["file"], int8["file"]) == ("onnx/model.onnx", "onnx/model_quantized.onnx")
    for step in (float32, int8):
        path = exported / step["file"]
        assert step["bytes"] == path.stat().st_size
        assert step["compared"]["rows"] == step["compared"]["answers"] == len(tiny.LINES)
        assert step["compared"]["data"] == "rows.csv"
    assert 0 < float32["compared"]["largest_difference"] < 1e-5
    assert float32["compared"]["largest_difference"] < int8["compared"]["largest_difference"] < 1
    assert int8["bytes"] < float32["bytes"]
    assert int8["from"] == float32["from"]


@pytest.fixture
def traced_before(exported, monkeypatch):
    """The export of before in place of a new trace, which takes ten seconds."""
    whole = (exported / "onnx" / "model.onnx").read_bytes()

    def write(_model, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(whole)
        return onnx_file.OnnxFile(path, "0" * 64, len(whole), 0.0)

    monkeypatch.setattr(work, "write_float32", write)
    return exported


def test_a_file_that_answers_otherwise_is_not_kept(traced_before, tmp_path, capsys):
    """Prevents a broken export from replacing a good one, or from looking like one."""
    out = tmp_path / "out"
    assert export(traced_before, "--output_dir", out, "--tolerance", "0") == 1
    assert "more than --tolerance 0; nothing was written" in capsys.readouterr().err
    assert not (out / "onnx").exists()
    assert list(out.iterdir()) == []


def test_a_comparison_scores_both_on_labels():
    """Prevents a step whose cost nobody can read, and a number for a correlation of nothing."""
    found = Comparison("made up")
    for ours, theirs, label in (([0, 1], [0, 1], 1), ([0, 1], [1, 0], 1), ([1, 0], [0, 1], 1)):
        found.add(np.array(ours, np.float32), np.array(theirs, np.float32), label)
    assert found.score() == {
        "metric": "accuracy",
        "before": 0.6667,
        "after": 0.6667,
        "lost": 1,
        "won": 1,
    }
    assert said(found) == " (accuracy 66.7 before, 66.7 after)"
    numbers = Comparison("made up")
    for ours, theirs, label in ((1.0, 5.0, 0.0), (2.0, 5.0, 1.0), (4.0, 5.0, 2.0)):
        numbers.add(np.array([ours]), np.array([theirs]), label)
    expected = {"metric": "pearson", "before": 0.982, "after": None}
    assert numbers.score() == expected
    assert said(numbers) == " (pearson 98.2 before, none after)"


def test_a_file_is_scored_where_the_rows_have_labels(traced_before, tmp_path):
    """Prevents a label column that is ignored, or another one that is taken for labels."""
    lines = [line.replace(",", "") for line in tiny.LINES]
    rows = ["sentence,label,other", *(f"{line},{n % 2},x" for n, line in enumerate(lines))]
    (tmp_path / "labelled.csv").write_text("\n".join(rows))
    words = ["--check", tmp_path / "labelled.csv", "--output_dir"]
    assert export(traced_before, *words, tmp_path / "out") == 0
    step = json.loads((tmp_path / "out" / "distil.json").read_text())["lineage"][-1]
    model = CLASSIFIER.from_pretrained(traced_before).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(traced_before)
    right = 0
    for number, line in enumerate(lines):
        with torch.no_grad():
            answer = model(**tokenizer(line, return_tensors="pt")).logits.argmax()
        right += int(answer == number % 2)
    share = round(right / len(lines), 4)
    assert step["compared"]["score"] == {
        "metric": "accuracy",
        "before": share,
        "after": share,
        "lost": 0,
        "won": 0,
    }
    named = [*words, tmp_path / "named", "--label_column", "other"]
    assert export(traced_before, *named) == 2


def test_a_comparison_counts_what_is_equal():
    """Prevents a share of equal answers that is 100 % whatever a file answers, and a lost NaN."""
    found = Comparison("made up")
    ours = np.array([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]], np.float32)
    theirs = ours.copy()
    theirs[1] = [0.0, 0.5]
    found.add(ours, theirs)
    assert (found.answers, found.equal_answers, found.largest_difference) == (3, 2, 3.0)
    found.add(np.array([1.04]), np.array([1.01]))  # a regression
    found.add(np.array([1.2]), np.array([1.0]))
    assert (found.answers, found.equal_answers) == (5, 3)
    assert found.share_of_equal_answers == 0.6
    assert found.score() is None  # without labels
    theirs[0, 0] = np.nan
    found.add(ours, theirs)
    assert found.largest_difference == np.inf


def test_another_models_int8_file_is_not_kept(traced_before, tmp_path, monkeypatch, capsys):
    """Prevents a file of other answers from being shipped, with nothing mocked in the judgement."""
    model = CLASSIFIER.from_pretrained(traced_before)
    with torch.no_grad():  # every answer is the other class
        model.classifier.weight.neg_()
        model.classifier.bias.neg_()
    wrong = tmp_path / "wrong.onnx"
    onnx_file.write_float32(model, wrong)

    def write(_source, path):
        path.write_bytes(wrong.read_bytes())
        return onnx_file.OnnxFile(path, "0" * 64, 1, 0.0)

    monkeypatch.setattr(work, "write_int8", write)
    words = ["--output_dir", tmp_path / "out", "--quantize", "int8"]
    assert export(traced_before, *words, "--check", traced_before.parent / "rows.csv") == 1
    assert "gives 0.0% of rows.csv's answers as the model does" in capsys.readouterr().err
    assert not (tmp_path / "out" / "onnx").exists()


def test_an_int8_file_must_agree_on_real_rows(traced_before, tmp_path, monkeypatch, capsys):
    """Prevents a file from being shipped that gives other answers than the model."""
    monkeypatch.setattr(work.Comparison, "share_of_equal_answers", property(lambda each: 0.5))
    rows = traced_before.parent / "rows.csv"
    words = ["--output_dir", tmp_path / "out", "--quantize", "int8"]
    assert export(traced_before, *words, "--check", rows) == 1
    assert "50.0% of rows.csv's answers as the model does" in capsys.readouterr().err
    assert not (tmp_path / "out" / "onnx").exists()
    assert export(traced_before, *words) == 0
    assert "(random tokens: not judged)" in capsys.readouterr().out


def test_another_folder_gets_config_and_tokenizer(traced_before, tmp_path):
    """Prevents a folder of files that nothing can tokenize for."""
    assert export(traced_before, "--output_dir", tmp_path / "out") == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "config.json",
        "distil.json",
        "onnx",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_another_models_folder_is_left_alone(traced_before, tmp_path, capsys):
    """Prevents a config that is laid over another model's weights, which then load nowhere."""
    tiny.folder(tmp_path / "other", tiny.bert(model_class=CLASSIFIER), tiny.wordpiece())
    before = {path: path.read_bytes() for path in (tmp_path / "other").iterdir()}
    assert export(traced_before, "--output_dir", tmp_path / "other") == 2
    assert "holds a model of its own" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "other").iterdir()} == before


def test_a_record_is_of_the_files_that_are_there(traced_before, tmp_path, monkeypatch, capsys):
    """Prevents an int8 file without a line, a line without its file, and one of other weights."""

    def write(_source, path):
        path.write_bytes(b"int8")
        return onnx_file.OnnxFile(path, sha256_of_file(path), 4, 0.0)

    monkeypatch.setattr(work, "write_int8", write)
    monkeypatch.setattr(work, "OnnxSession", lambda _path: None)
    monkeypatch.setattr(work, "compare", lambda *_: Comparison("none"))
    out = tmp_path / "out"

    def files():
        return [step["file"] for step in json.loads((out / "distil.json").read_text())["lineage"]]

    whole = ["onnx/model.onnx", "onnx/model_quantized.onnx"]
    assert export(traced_before, "--output_dir", out, "--quantize", "int8") == 0
    assert files() == whole
    assert export(traced_before, "--output_dir", out) == 0
    assert sorted(files()) == whole
    other = tmp_path / "other"
    tiny.folder(other, tiny.bert(model_class=CLASSIFIER, seed=3), tiny.wordpiece())
    capsys.readouterr()
    assert export(other, "--output_dir", out) == 2
    assert "model_quantized.onnx was exported from other weights" in capsys.readouterr().err
    (out / "onnx" / "model_quantized.onnx").unlink()
    assert export(traced_before, "--output_dir", out) == 0
    assert files() == whole[:1]


def test_exporting_again_replaces_its_line(traced_before, tmp_path):
    """Prevents a record with two lines about one file."""
    for _ in range(2):
        assert export(traced_before, "--output_dir", tmp_path / "out") == 0
    lineage = json.loads((tmp_path / "out" / "distil.json").read_text())["lineage"]
    assert [step["file"] for step in lineage].count("onnx/model.onnx") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--text_columns", "sentence"], "--text_columns is about --check DATA"),
        (["--rows", "3"], "--rows is about --check DATA"),
        (["--check", "rows.csv", "--least_agreement", "1"], "add --quantize int8"),
        (["--check", "nowhere.csv"], "nowhere.csv"),
        (["--check", "rows.txt"], "unsupported file type"),
        (["--to", "onix"], "did you mean 'onnx'?"),
        (["--quantize", "int4"], "int8"),
    ],
)
def test_bad_input_is_one_line(traced_before, tmp_path, capsys, words, said):
    """Prevents a traceback after ten seconds of tracing."""
    (tmp_path / "rows.txt").write_text("a\n")
    words = [str(tmp_path / word) if word.startswith("rows") else word for word in words]
    assert export(traced_before, *words) == 2
    assert said in capsys.readouterr().err


def test_a_missing_package_is_one_line(tmp_path, monkeypatch, capsys):
    """Prevents an ImportError where the extra isn't installed."""
    tiny.folder(tmp_path / "model", tiny.bert(model_class=CLASSIFIER), tiny.wordpiece())
    monkeypatch.setattr(work, "PACKAGES", ("onnx", "no_such_package"))
    assert export(tmp_path / "model") == 2
    said = capsys.readouterr().err
    assert "export needs no_such_package, which is not installed: pip install" in said


HEADS = {
    "bert-qa": (tiny.bert, {"model_class": transformers.BertForQuestionAnswering}),
    "distilbert-mlm": (tiny.distilbert, {}),
    "roberta-classes": (
        tiny.roberta,
        {"model_class": transformers.RobertaForSequenceClassification},
    ),
    "modernbert-tokens": (
        tiny.modernbert,
        {"model_class": transformers.ModernBertForTokenClassification},
    ),
    "gpt2-causal": (tiny.gpt2, {}),
    "qwen3-causal": (tiny.qwen3, {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
def test_every_head_and_the_last_architectures(name, tmp_path):
    """Prevents a head or an architecture that can't be exported, found by a user."""
    make, settings = HEADS[name]
    model = tiny.shaken(make(**settings))
    kind = {"roberta": "roberta", "gpt2": "gpt2", "qwen3": "qwen3"}.get(name.split("-")[0], "bert")
    tiny.folder(tmp_path / "model", model, tiny.tokenizer_for(kind))
    assert export(tmp_path / "model", "--quantize", "int8") == 0
    ids = np.random.default_rng(0).integers(5, 150, (3, 23))
    mask = np.ones_like(ids)
    mask[1, 11:] = 0
    found = run_alone(
        tmp_path / "model" / "onnx" / "model.onnx",
        input_ids=ids,
        attention_mask=mask,
        token_type_ids=np.zeros_like(ids),
    )
    with torch.no_grad():
        output = model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask))
    attended = mask.astype(bool)
    for ours, theirs in zip(found, output.to_tuple(), strict=False):
        expected = theirs.numpy()
        if expected.ndim > 1 and expected.shape[1] == ids.shape[1]:
            ours, expected = ours[attended], expected[attended]
        np.testing.assert_allclose(ours, expected, atol=1e-4)
