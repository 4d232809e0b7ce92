"""The commands as a stranger types them: by name cold, then without the server, and pushed."""

import json
import os
import re
import shutil
import subprocess
import sys

import datasets
import pytest
import tiny
import updates
import yaml
from hub_server import status
from on_the_hub import everything, model_files
from transformers import AutoModelForMaskedLM, pipeline

from angels_share.cli import run_command
from angels_share.errors import UserError
from distil_trainer import DistilTrainer, DistilTrainingArguments
from distil_trainer.models.loading import load_model
from eval_harness.commands import glue
from eval_harness.commands import push as push_command
from eval_harness.results.store import find
from eval_harness.runs.models import identify

FAST = ["--max_seq_length", "24", "--num_train_epochs", "1", "--use_cpu", "--threads", "1"]
COMMANDS = {
    "run_glue.py": ["--model", "distilbert", "--tasks", "rte", "cola", "--num_seeds", "1", *FAST],
    "run_squad_distill.py": [
        "--model", "distilbert", "--teacher", "bert", "--num_seeds", "1", "--doc_stride", "4",
        "--max_query_length", "8", *FAST,
    ],
    "run_pretrain_distill.py": [
        "--teacher", "bert", "--corpus", "someone/wiki", "--max_steps", "2", "--use_cpu",
        "--max_seq_length", "16", "--min_tokens", "4", "--report_to", "none",
    ],
}  # fmt: skip


@pytest.fixture
def typed(server, tmp_path, run_script):
    """Types a command on a machine whose cache is empty at first."""
    everything(server, tmp_path)

    def typed(script, words, folder, token=None, **more):
        out = "--output_dir" if "pretrain" in script else "--results_dir"
        environment = server.environment(tmp_path / "home", token=token) | more
        environment |= {"OMP_NUM_THREADS": "1", "HF_TOKEN": token or ""}
        return run_script(script, *words, out, str(tmp_path / folder), timeout=200, **environment)

    return typed


def outcome(script, folder):
    """Return what a command made, without times."""
    if "pretrain" in script:
        return (folder / "model.safetensors").read_bytes()
    return {key: (each.score, each.scores) for key, each in find(folder).by_key.items()}


@pytest.mark.slow
@pytest.mark.parametrize("script", COMMANDS)
def test_a_command_by_name_cold_and_then_without_the_server(script, server, typed, tmp_path):
    """Prevents the README's commands from working only for those who have everything already."""
    ended = typed(script, COMMANDS[script], "cold")
    assert ended.returncode == 0, ended.stderr
    asked = len(server.requests)
    with server.gone():
        for name, more in (("gone", {}), ("offline", {"HF_HUB_OFFLINE": "1"})):
            ended = typed(script, COMMANDS[script], name, **more)
            assert ended.returncode == 0, ended.stderr
            assert outcome(script, tmp_path / name) == outcome(script, tmp_path / "cold")
    assert len(server.requests) == asked


@pytest.mark.slow
def test_a_run_is_resumed_without_the_server(server, typed, tmp_path):
    """Prevents a resumed run from asking again for a teacher and a corpus that it has."""
    script, words = "run_pretrain_distill.py", COMMANDS["run_pretrain_distill.py"]
    words = [*words, "--max_steps", "4", "--save_steps", "2"]
    assert typed(script, words, "whole").returncode == 0
    for part in ("corpus", "checkpoint-2"):
        shutil.copytree(tmp_path / "whole" / part, tmp_path / "again" / part)
    with server.gone():
        ended = typed(script, [*words, "--resume_from_checkpoint", "latest"], "again")
    assert ended.returncode == 0, ended.stderr
    assert outcome(script, tmp_path / "again") == outcome(script, tmp_path / "whole")


@pytest.mark.slow
def test_a_student_is_pushed_when_it_is_finished(server, typed, tmp_path):
    """Prevents a student that others can't load, or whose push failed and was lost."""
    token = server.token("me")
    script, words = "run_pretrain_distill.py", COMMANDS["run_pretrain_distill.py"]
    ended = typed(script, [*words, "--push_to_hub"], "my-student", token=token)
    assert ended.returncode == 0, ended.stderr
    assert f"pushed: {server.endpoint}/me/my-student/commit/" in ended.stdout
    files = server.files("me/my-student")
    assert server.repo("me/my-student").private
    assert files["model.safetensors"] == (tmp_path / "my-student/model.safetensors").read_bytes()
    card = files["README.md"].decode()
    assert "apache-2.0" in card
    assert str(tmp_path) not in card + files["distil.json"].decode()
    with server.used(tmp_path / "other", token=token):
        AutoModelForMaskedLM.from_pretrained("me/my-student")
        assert identify("me/my-student").teacher == "bert"
    server.fail("/commit/main", *[status(403, "no")] * 9)
    ended = typed(script, [*words, "--push_to_hub"], "second", token=token)
    assert ended.returncode == 1
    assert (tmp_path / "second" / "model.safetensors").is_file()
    again = re.search(r"`python (-m eval_harness push .*)`", ended.stderr)[1].split()
    server._faults.clear()
    environment = server.environment(tmp_path / "home", token=token)
    subprocess.run([sys.executable, *again], check=True, env={**os.environ, **environment})
    assert "model.safetensors" in server.files("me/second")


@pytest.fixture
def writer(server, tmp_path, monkeypatch, forget):
    everything(server, tmp_path)
    forget()
    server.use(monkeypatch, tmp_path / "home", token=server.token("me"))
    yield server
    forget()


def test_fine_tuned_models_are_pushed_one_for_each_task(writer, tmp_path, capsys):
    """Prevents the best seed from being published as if it were the rule, and leftovers."""
    words = [
        "--model", "distilbert", "--tasks", "rte", "cola", "--num_seeds", "3", *FAST,
        "--results_dir", str(tmp_path / "results"), "--learning_rate", "3e-3",
    ]  # fmt: skip
    assert run_command(glue.COMMAND, [*words, "--push_to_hub", "--hub_model_id", "mine"]) == 0
    said = capsys.readouterr().out
    for task in ("rte", "cola"):
        files = writer.files(f"me/mine-{task}")
        assert {name for name in files if "/" not in name} == {
            ".gitattributes", "README.md", "config.json", "distil.json", "model.safetensors",
            "tokenizer.json", "tokenizer_config.json",
        }  # fmt: skip
        (step,) = json.loads(files["distil.json"])["lineage"]
        assert step["settings"]["task"] == task
        (kept,) = (tmp_path / "results" / "models").glob(f"*/{task}/*/seed-*")
        assert files["model.safetensors"] == (kept / "model.safetensors").read_bytes()
        assert f"pushed: {writer.endpoint}/me/mine-{task}/commit/" in said
        results = [json.loads(files[name]) for name in files if name.startswith("results/")]
        scores = sorted(result["score"] for result in results)
        own = next(result for result in results if f"seed-{result['seed']}" == kept.name)
        assert (len(scores), own["score"]) == (3, scores[1])
        for result in results:
            assert result["predictions"] is None
            assert result["withheld"]["sha256"]
            assert str(tmp_path) not in json.dumps(result)
        card = files["README.md"].decode()
        assert f"seed {own['seed']}" in card
        assert "nyu-mll/glue" in card
    classify = pipeline("text-classification", model="me/mine-cola")
    assert classify("the old river")[0]["label"] in ("unacceptable", "acceptable")
    before = len(writer.commits("me/mine-rte"))
    assert run_command(glue.COMMAND, [*words, "--push_to_hub", "--hub_model_id", "mine"]) == 0
    assert len(writer.commits("me/mine-rte")) == before
    root = tmp_path / "results"
    sent = [str(root), "--results", "--repo_id", "numbers"]
    assert run_command(push_command.COMMAND, sent) == 0
    data = writer.files("me/numbers", what="dataset")
    assert sum(name.startswith("results/") for name in data) == 6
    assert not any("predictions" in name for name in data)
    assert writer.repo("me/numbers", what="dataset").private
    rows = datasets.load_dataset("me/numbers", split="runs")
    assert sorted(rows["score"]) == sorted(each.score for each in find(root).results)
    assert "Table 1" in data["README.md"].decode()


def test_a_push_is_refused_before_any_work(writer, tmp_path, monkeypatch, capsys):
    """Prevents hours of fine-tuning whose models then can't be pushed."""
    monkeypatch.delenv("HF_TOKEN")
    words = [
        "--model", "distilbert", "--tasks", "rte", *FAST, "--results_dir", str(tmp_path / "r"),
    ]  # fmt: skip
    assert run_command(glue.COMMAND, [*words, "--push_to_hub"]) == 2
    assert "needs a token" in capsys.readouterr().err
    assert run_command(glue.COMMAND, [*words, "--hub_model_id", "mine"]) == 2
    assert "--hub_model_id says where to push: add --push_to_hub" in capsys.readouterr().err
    assert run_command(glue.COMMAND, [*words, "--push_to_hub", "--save_models", "none"]) == 2
    assert not (tmp_path / "r" / "runs").exists()


def test_the_trainers_own_methods_are_as_safe(writer, tmp_path):
    """Prevents `trainer.push_to_hub()` from sending pickled arguments, checkpoints and all else."""
    settings = {"hub_model_id": "by-hand", "save_strategy": "steps", "save_steps": 1}
    sha = writer.add("someone/teacher", model_files(tmp_path / "t", tiny.bert(2)))
    teacher = load_model("someone/teacher")
    trainer = updates.trainer_for(
        "masked", tmp_path / "out", teacher=teacher, student=tiny.distilbert(1), **settings
    )
    trainer.train()
    (tmp_path / "out" / "notes.txt").write_text("mine alone")
    assert "pushed: " in trainer.push_to_hub(commit_message="By hand", language="en")
    files = writer.files("me/by-hand")
    assert set(files) - {".gitattributes"} == {
        "README.md", "config.json", "distil.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    metadata = yaml.safe_load(files["README.md"].decode().split("---")[1])
    assert (metadata["base_model"], metadata["license"]) == ("someone/teacher", "apache-2.0")
    assert json.loads(files["distil.json"])["teachers"][0]["revision"] == sha
    assert [commit.title for commit in writer.commits("me/by-hand")][-1] == "By hand"
    assert writer.repo("me/by-hand").private
    trainer.state.global_step = 9  # as after more training
    trainer.push_to_hub()
    assert json.loads(writer.files("me/by-hand")["distil.json"])["step"] == 9
    trainer.create_model_card(license="mit")
    card = tmp_path / "out" / "README.md"
    assert "license: mit" in card.read_text()
    for named in ({"token": "hf_x"}, {"blocking": False}, {"tags": ["mine"]}):
        with pytest.raises(UserError, match=next(iter(named))):
            trainer.push_to_hub(**named)
    with pytest.raises(UserError, match="push_to_hub"):
        DistilTrainingArguments(str(tmp_path), push_to_hub=True)
    assert DistilTrainer.push_to_hub.__doc__


def test_two_models_are_never_one_repository(writer, tmp_path, forget, capsys):
    """Prevents the second model of a command from replacing the first on the Hub."""
    older = identify("distilbert").revision
    writer.commit("distilbert/distilbert-base-uncased", {"README.md": b"# Newer"})
    forget()
    words = [
        "--model", f"distilbert@{older}", "distilbert@main", "--tasks", "rte", *FAST,
        "--results_dir", str(tmp_path / "r"), "--push_to_hub",
    ]  # fmt: skip
    assert run_command(glue.COMMAND, words) == 2
    assert "two models would both become me/distilbert-rte" in capsys.readouterr().err
