"""Exported files in the commands: evaluated as they are, as rows of their own, or refused."""

import json
import shutil

import pytest
import tiny
import worlds

pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
pytest.importorskip("onnxscript", reason="the extra `export` is not installed")

import exported

from angels_share import imports
from angels_share.cli import run_command
from angels_share.errors import UserError
from angels_share.files import sha256_of_file
from angels_share.flags import parse
from angels_share.tokenizing import load_tokenizer
from eval_harness.commands import compare, glue, speed, squad
from eval_harness.data.splits import load_task
from eval_harness.results.predictions import ClassPredictions
from eval_harness.results.speed import find_speeds
from eval_harness.results.store import find, read_predictions
from eval_harness.runs.models import identify
from eval_harness.sweep.plan import jobs, plan
from eval_harness.tasks.lookup import task_named
from eval_harness.training.classification import logits_of
from eval_harness.training.encoding import encode
from eval_harness.training.onnx_model import OnnxModel, load_file

TORCH, FLOAT, INT8 = "tuned", "tuned (onnx)", "tuned (onnx int8)"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = worlds.make(tmp_path_factory.mktemp("world"))
    exported.classifier(root / "tuned")
    return root


def argv(world, results, models, *words):
    return ["--model", *(str(world / each) for each in models), "--data_dir", str(world / "glue"),
            "--results_dir", str(results), "--tasks", "rte", *words]  # fmt: skip


FILES = ["tuned/onnx/model.onnx", "tuned/onnx/model_quantized.onnx"]


def planned(world, results, models, *words):
    words = argv(world, results, models, *words)
    return plan(glue.experiment(parse(glue.COMMAND.flags, words, takes_training_flags=True)))


@pytest.fixture(scope="module")
def results(world, tmp_path_factory):
    """A results folder with the model's row and those of its files, by the command itself."""
    root = tmp_path_factory.mktemp("results")
    words = argv(world, root, ["tuned", *FILES], "--eval_only", "--workers", "1", "--threads", "1")
    assert run_command(glue.COMMAND, words) == 0
    return root


def by_name(root):
    return {result.model.name: result for result in find(root).by_key.values()}


def test_files_have_rows_of_their_own(world, results):
    """Prevents a file's number under its model's key, or without what it was computed by."""
    found = by_name(results)
    assert found.keys() == {TORCH, FLOAT, INT8}
    assert len({result.key for result in found.values()}) == 3
    for name, file in zip((FLOAT, INT8), FILES, strict=True):
        assert found[name].model.weights == sha256_of_file(world / file)
        assert found[name].provenance["libraries"]["onnxruntime"]
        assert found[name].provenance["seeds"] == [1]
    assert "onnxruntime" not in found[TORCH].provenance["libraries"]
    assert [found[name].settings.row.get("one_by_one") for name in (TORCH, FLOAT, INT8)] == [
        None, None, True,
    ]  # fmt: skip


def test_a_float32_file_answers_as_its_model(results):
    """Prevents padding that is read, token types that are lost, or outputs of another order."""
    found = by_name(results)
    logits = {name: read_predictions(results, found[name], ClassPredictions).logits
              for name in found}  # fmt: skip
    assert logits[FLOAT] == pytest.approx(logits[TORCH], abs=1e-5)
    assert found[FLOAT].scores == found[TORCH].scores
    assert logits[INT8] != pytest.approx(logits[TORCH], abs=1e-5)  # it is another model
    assert logits[INT8] == pytest.approx(logits[TORCH], abs=1.0)


def test_an_int8_answer_is_its_own(world):
    """Prevents an answer that changes with the size of a batch, which `results` don't record."""
    (dev,) = load_task(task_named("rte"), world / "glue", train=False).evaluation
    model = identify(str(world / FILES[1]))
    tokenizer = load_tokenizer(model.home)
    rows = encode(dev, tokenizer, 32)
    loaded = load_file(model, task_named("rte"), tokenizer)

    def logits(model, size):
        return logits_of(model, rows, loaded.pad_id, batch_size=size).tolist()

    assert logits(loaded.model, 8) == logits(loaded.model, 1)
    together = OnnxModel(loaded.model._session, loaded.model.config, read_alone=False)
    assert logits(together, 1) == logits(loaded.model, 1)
    assert logits(together, 8) != logits(loaded.model, 1)  # or reading alone would be for nothing


def test_what_the_file_lost_has_an_interval(world, results, capsys):
    """Prevents a file that can't be compared with its model."""
    models = [str(world / each) for each in ("tuned", *FILES)]
    words = [*models, "--results_dir", str(results), "--format", "json"]
    assert run_command(compare.COMMAND, words) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed)
    assert f"{FLOAT} vs {TORCH}" in printed
    assert f"{INT8} vs {TORCH}" in printed


def test_evaluation_alone_is_implied(world, tmp_path):
    """Prevents five equal runs of a file, and two keys of one evaluation."""
    runs = [job.run for job in jobs(planned(world, tmp_path, FILES))]
    assert [(run.seed, run.settings.row["eval_only"]) for run in runs] == [(1, True), (1, True)]
    explicit = [job.run for job in jobs(planned(world, tmp_path, FILES, "--eval_only"))]
    assert [run.key for run in explicit] == [run.key for run in runs]


def test_the_key_is_the_files_content(world, tmp_path):
    """Prevents an old result under a new file, a new one for a copy, or one for another text."""
    copy = shutil.copytree(world / "tuned", tmp_path / "tuned")
    before = identify(str(world / FILES[0])).key
    assert identify(str(copy / "onnx" / "model.onnx")).key == before
    (copy / "model.safetensors").write_bytes(b"")  # of no file's concern
    assert identify(str(copy / "onnx" / "model.onnx")).key == before
    shutil.copy(copy / "onnx" / "model_quantized.onnx", copy / "onnx" / "model.onnx")
    changed = identify(str(copy / "onnx" / "model.onnx"))
    assert changed.key != before
    assert changed.name == INT8
    (copy / "tokenizer_config.json").write_text("{}")
    assert identify(str(copy / "onnx" / "model.onnx")).key != changed.key


REFUSED = [
    (["bert", FILES[0]], [], "can only be evaluated and .*bert would be fine-tuned: use two"),
    ([FILES[0]], ["--num_seeds", "2"], "--num_seeds is not accepted with an .onnx file"),
    ([FILES[0]], ["--teacher", "bert"], "--teacher is not accepted with an .onnx file"),
    ([FILES[0]], ["--learning_rate", "1"], "--learning_rate is for training"),
    ([FILES[0]], ["--bf16"], "--bf16: .* computes as it was exported"),
    (["tuned/onnx/none.onnx"], [], "no such file: `python -m distil_trainer export` makes one"),
    ([FILES[0]], ["--tasks", "cola"], "has no head that was fine-tuned on CoLA"),
    (["bare/model.onnx"], [], "has no config.json with a tokenizer"),
    (["bert/onnx/model.onnx"], [], "has no head that was fine-tuned on RTE"),
]


@pytest.mark.parametrize(("models", "words", "said"), REFUSED)
def test_what_is_refused(world, tmp_path, models, words, said):
    """Prevents a flag that is ignored, a file that is trained, a head that learned nothing."""
    for folder in ("bare", "bert/onnx"):
        (world / folder).mkdir(exist_ok=True)
        shutil.copy(world / FILES[0], world / folder / "model.onnx")
    with pytest.raises(UserError, match=said):
        planned(world, tmp_path, models, *words)


def test_a_file_is_no_teacher(world, tmp_path):
    """Prevents hours of planning for a teacher that can't be fine-tuned."""
    words = ["--teacher", str(world / FILES[0])]
    with pytest.raises(UserError, match="an ONNX file can't be fine-tuned"):
        planned(world, tmp_path, ["bert"], *words)


def test_without_onnxruntime(world, tmp_path, monkeypatch):
    """Prevents a ModuleNotFoundError in a worker in place of what to type."""
    monkeypatch.setattr(imports.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(
        UserError,
        match=r"onnxruntime, which is not installed: pip install -c constraints.txt '\.\[e",
    ):
        planned(world, tmp_path, [FILES[0]])


@pytest.mark.parametrize("content", [b"not a model", b""])
def test_a_damaged_file_is_one_line(world, tmp_path, capsys, content):
    """Prevents onnxruntime's own stack of errors."""
    folder = shutil.copytree(world / "tuned", tmp_path / "tuned")
    (folder / "onnx" / "model.onnx").write_bytes(content)
    words = argv(tmp_path, tmp_path / "results", [FILES[0]], "--workers", "1")
    words[words.index("--data_dir") + 1] = str(world / "glue")
    assert run_command(glue.COMMAND, words) != 0
    error = capsys.readouterr().err
    assert "is empty" in error or "onnxruntime can't open it" in error
    assert "Traceback" not in error


def test_questions_are_evaluated_as_they_are_too(world, tmp_path):
    """Prevents `--eval_only` of a model whose head of questions is new, and unused files."""
    files = ["--train_file", str(world / "squad" / "train.json"), "--validation_file",
             str(world / "squad" / "dev.json")]  # fmt: skip
    words = ["--model", str(world / "bert"), "--eval_only", "--results_dir", str(tmp_path)]

    def asked(*more):
        parsed = parse(squad.COMMAND.flags, [*words, *more], takes_training_flags=True)
        return plan(squad.experiment(parsed))

    with pytest.raises(UserError, match="--train_file is not accepted with --eval_only"):
        asked(*files)
    with pytest.raises(UserError, match="has no head that was fine-tuned on SQuAD"):
        asked(*files[2:])


@pytest.mark.slow
def test_speed_of_files_beside_their_model(world, tmp_path, capsys):
    """Prevents times of another session side by side, or of a file that isn't named."""
    words = ["--model", str(world / "tuned"), "--data_dir", str(world / "glue"), "--pairs", "4",
             "--repeats", "1", "--threads", "1", "--batch_sizes", "2", "--backend", "torch",
             "onnx", "onnx-int8", "--results_dir", str(tmp_path)]  # fmt: skip
    assert run_command(speed.COMMAND, words) == 0
    (session,) = find_speeds(tmp_path).sessions
    assert [(each.name, each.backend, each.file_dtype) for each in session.models] == [
        (TORCH, "torch", "float32"), (FLOAT, "onnx", "float32"), (INT8, "onnx-int8", "int8"),
    ]  # fmt: skip
    for model, file in zip(session.models[1:], FILES, strict=True):
        assert model.key == identify(str(world / file)).key
        assert model.file_bytes == (world / file).stat().st_size
        assert model.parameters == session.models[0].parameters
    assert session.libraries["onnxruntime"]
    printed = capsys.readouterr().out
    assert INT8 in printed
    assert "processor flags" in printed


SPEED_REFUSED = [
    (["bert", "--backend", "onnx-int8"],
     "bert has no onnx/model_quantized.onnx; to make it: python -m distil_trainer export .*bert "
     "--quantize int8$"),
    (["tuned", "--backend", "onnx", "--bf16"], "--bf16: an ONNX file computes as it was exported"),
    (["tuned", "--backend", "onnx", "--device", "cuda"], "ONNX files are timed on the CPU"),
    ([FILES[0]], "give the model's folder, with --backend onnx"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "said"), SPEED_REFUSED)
def test_what_speed_refuses(world, tmp_path, words, said):
    """Prevents minutes of timing that end in what could have been said at once."""
    if words[0] == "bert":
        shutil.rmtree(world / "bert" / "onnx", ignore_errors=True)
    given = ["--model", str(world / words[0]), *words[1:], "--synthetic"]
    with pytest.raises(UserError, match=said):
        speed.requests(parse(speed.COMMAND.flags, given, takes_training_flags=False))


@pytest.mark.slow
def test_speed_of_random_weights(tmp_path):
    """Prevents a base-size model from being timed only by those who have its weights."""
    config = tiny.bert(layers=1).config.to_dict()
    (tmp_path / "small.json").write_text(json.dumps(config))
    words = ["--model", str(tmp_path / "small.json"), "--synthetic", "--max_seq_length", "32",
             "--pairs", "4", "--repeats", "1", "--threads", "1", "2", "--batch_sizes", "2",
             "--backend", "onnx-int8", "onnx", "--results_dir", str(tmp_path)]  # fmt: skip
    assert run_command(speed.COMMAND, words) == 0
    (session,) = find_speeds(tmp_path).sessions
    assert [each.name for each in session.models] == ["small (onnx int8)", "small (onnx)"]
    assert session.models[0].file_bytes < session.models[1].file_bytes
    assert all(each.random_weights for each in session.models)
