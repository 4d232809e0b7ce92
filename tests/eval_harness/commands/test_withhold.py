"""`withhold`: what can be told after the per-example files are gone, and what can't."""

import errno
import re
from dataclasses import replace
from pathlib import Path

import made_results as made
import numpy as np
import pytest

from angels_share.cli import run_command
from eval_harness.commands import compare, tables, withhold
from eval_harness.intervals import kept
from eval_harness.results.probes import ProbeResult, Shown, write, write_shown
from eval_harness.results.store import find, publish
from eval_harness.runs.run import Training


def put_probes(root):
    """Two trainings of three seeds, measured on the same held-out text."""
    keys = []
    rng = np.random.default_rng(0)
    for group in ("a", "b"):
        for seed in (1, 2, 3):
            model = replace(
                made.model(f"{group}-{seed}", f"{ord(group)}{seed}00000"[:8]),
                source=f"/models/{group}/seed-{seed}/none",
                revision=None,
            )
            loss = 2 * (3 + (group == "b") + rng.normal(size=40) / 9)
            columns = {
                "id": np.array(list(map(str, range(40))), dtype=object),
                "words": np.full(40, 2.0),
                "loss": loss,
            }
            result = ProbeResult(
                model, Training(group * 16, seed), "text", {"version": 1, "hidden": 0.15}, {},
                {"files": ["t.txt"], "count": 40}, made.PROVENANCE, 1.0, "2026-01-01T00:00:00",
            )  # fmt: skip
            write(root, result, columns)
            keys.append({"text": result.key})
    write_shown(root, Shown(tuple(keys)))


@pytest.fixture
def root(tmp_path):
    for model, share in ((made.BERT, 0.9), (made.STUDENT, 0.7)):
        for seed in (1, 2, 3):
            accuracy = share + seed / 100
            result = made.result(
                model, seed=seed, score=accuracy,
                scores={"validation": {"accuracy": accuracy, "score": accuracy}},
            )  # fmt: skip
            publish(tmp_path, result, made.scoring(accuracy))
    put_probes(tmp_path)
    return tmp_path


def printed(root, capsys):
    """What `tables` and `compare` print."""
    assert run_command(tables.COMMAND, ["--results_dir", str(root)]) == 0
    assert run_command(compare.COMMAND, ["bert", "distilbert", "--results_dir", str(root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    return "\n".join(line for line in lines if "not published" not in line)


def test_tables_and_comparisons_stay_as_they_were(root, capsys):
    """Prevents published results whose intervals nobody can see."""
    before = printed(root, capsys)
    assert "±" in before
    assert "differences from" in before
    for path in (root / "intervals").iterdir():
        path.unlink()  # `withhold` must make what is missing
    assert run_command(withhold.COMMAND, ["--results_dir", str(root)]) == 0
    assert "6 runs and 6 probes" in capsys.readouterr().out
    assert not list(root.rglob("*.parquet"))
    assert [path for path in root.rglob("*.json") if "/models" in path.read_text()] == []
    assert all(result.withheld for result in find(root).results)
    assert printed(root, capsys) == before
    assert run_command(withhold.COMMAND, ["--results_dir", str(root)]) == 0
    assert "0 runs and 0 probes" in capsys.readouterr().out


def test_without_what_was_kept_there_is_no_interval(root, capsys):
    """Prevents a table that shows kept numbers of other examples, or fails without them."""
    assert run_command(withhold.COMMAND, ["--results_dir", str(root)]) == 0
    for path in (root / "intervals").iterdir():
        path.unlink()
    capsys.readouterr()
    text = printed(root, capsys)
    assert "withheld" in text
    assert not re.search(r"±\d", text)


def test_nothing_is_removed_where_a_file_is_damaged(root, capsys):
    """Prevents the loss of the only proof that a score is what its record says."""
    files = sorted(root.rglob("*.parquet"))
    for is_kept in (False, True):  # with what an earlier table kept, nothing reads the examples
        for damaged in (files[0], files[-1]):
            if is_kept:
                printed(root, capsys)
            whole = damaged.read_bytes()
            damaged.write_bytes(b"damaged")
            assert run_command(withhold.COMMAND, ["--results_dir", str(root)]) == 2
            assert damaged.name in capsys.readouterr().err
            assert sorted(root.rglob("*.parquet")) == files
            damaged.write_bytes(whole)


def test_a_folder_that_is_not_there(tmp_path, capsys):
    """Prevents a folder that was mistyped from being called published."""
    assert run_command(withhold.COMMAND, ["--results_dir", str(tmp_path / "reslts")]) == 2
    assert "not a folder" in capsys.readouterr().err


def test_nothing_is_removed_where_nothing_can_be_kept(root, capsys, monkeypatch):
    """Prevents a full disk from costing every interval, without a word."""

    def full(path, _record):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(kept, "write_json", full)
    files = sorted(root.rglob("*.parquet"))
    assert run_command(withhold.COMMAND, ["--results_dir", str(root)]) == 1
    assert "what is to be kept can't be written there" in capsys.readouterr().err
    assert sorted(root.rglob("*.parquet")) == files


def test_an_interrupted_command_is_finished(root, monkeypatch, capsys):
    """Prevents labels that stay where a record says that they were removed."""
    real = Path.unlink

    def killed(path, **settings):
        if path.suffix == ".parquet":
            raise KeyboardInterrupt
        real(path, **settings)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            withhold.withhold_examples(root)
    assert len([result for result in find(root).results if result.withheld]) == 1
    assert run_command(withhold.COMMAND, ["--results_dir", str(root)]) == 0
    assert "5 runs and 6 probes" in capsys.readouterr().out
    assert not list(root.rglob("*.parquet"))


@pytest.mark.parametrize("name", ["seed-1.0123abcd.parquet", ".seed-1.json.0123.tmp"])
def test_what_no_result_names_is_not_published(root, capsys, name):
    """Prevents labels in a file of replaced or unfinished predictions from being published."""
    for folder in ("runs", "probes"):
        place = next((root / folder).rglob("*.parquet")).with_name(name)
        place.write_bytes(b"labels")
        assert run_command(withhold.COMMAND, ["--results_dir", str(root)]) == 2
        said = capsys.readouterr().err
        assert name in said
        assert "nothing was removed" in said
        assert len(list(root.rglob("*.parquet"))) >= 12
        place.unlink()
