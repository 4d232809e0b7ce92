"""Distillation from Python where the packages for data and statistics aren't installed."""

import sys

import pytest
import tiny

import distil_trainer
from angels_share.errors import UserError
from distil_trainer.data.sources import find_sources

NOT_NEEDED = ("datasets", "evaluate", "pandas", "pyarrow", "scipy", "sklearn", "tabulate")
TRAINING = f"""
import sys
sys.modules.update(dict.fromkeys({NOT_NEEDED}))  # as if they weren't installed
import distil_trainer, tiny, updates
from angels_share.errors import UserError
for name in distil_trainer.__all__:
    getattr(distil_trainer, name)
folder = sys.argv[1]
teacher = tiny.bert(layers=3)
trainer = distil_trainer.DistilTrainer(
    distil_trainer.make_student(teacher, num_layers=2),
    distil_trainer.DistilTrainingArguments(
        folder, max_steps=2, save_steps=1, logging_steps=1, use_cpu=True, report_to=[],
    ),
    teacher=teacher,
    train_dataset=updates.sequences(160),
    eval_dataset=updates.sequences(160, count=2),
    processing_class=tiny.wordpiece(),
)
trainer.train()
trainer.evaluate()
trainer.save_model()
distil_trainer.load_model(folder)
assert trainer.state.global_step == 2
try:
    distil_trainer.prepare_corpus(["text.txt"], tiny.wordpiece(), cache_dir=folder)
except UserError as error:
    print(error)
"""


def line(purpose, package):
    return (
        f"{purpose} needs the package '{package}', which isn't installed for {sys.executable}: "
        f"python -m pip install {package}"
    )


def test_a_student_is_trained_without_packages_for_data(run_script, tmp_path):
    """Prevents a GPU machine without pyarrow or scikit-learn from being of no use to us."""
    ended = run_script("-c", TRAINING, str(tmp_path), timeout=120)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert ended.stdout.splitlines()[-1] == line("a prepared corpus", "pyarrow")
    assert (tmp_path / "checkpoint-2").is_dir()


def test_a_corpus_without_pyarrow_is_one_line(monkeypatch, tmp_path):
    """Prevents a ModuleNotFoundError, and a text that is read before it is known to be in vain."""
    text = tmp_path / "text.txt"
    text.write_text("\n".join(tiny.LINES))
    options = distil_trainer.CorpusOptions(min_tokens=3)
    made = distil_trainer.prepare_corpus(
        [str(text)], tiny.wordpiece(), cache_dir=tmp_path / "made", options=options
    )
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for ask in (
        lambda: distil_trainer.Corpus.open(made.folder),
        lambda: distil_trainer.prepare_corpus(
            [str(tmp_path / "nowhere")], tiny.wordpiece(), cache_dir=tmp_path / "new"
        ),
    ):
        with pytest.raises(UserError) as refused:
            ask()
        assert str(refused.value) == line("a prepared corpus", "pyarrow")
    assert not (tmp_path / "new").exists()


def test_a_file_that_needs_a_package_names_it(monkeypatch, tmp_path):
    """Prevents a ModuleNotFoundError that doesn't say which of many files asked for it."""
    file = tmp_path / "text.parquet"
    file.write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (source,) = find_sources([str(file)])
    with pytest.raises(UserError) as refused:
        list(source.texts())
    assert str(refused.value) == line(str(file), "pyarrow")
