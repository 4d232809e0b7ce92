"""`python -m benchmarks.gpu`: each part in a process and a time of its own, rehearsed."""

import json
import os
import time

import pytest

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import parts
from benchmarks.gpu.parts import Figure, Part

SETUP = parts.Setup("cpu", small=True)
NOT_ON_A_GPU_MACHINE = ("pyarrow", "datasets", "evaluate", "pandas", "scipy", "tabulate")


def good(_setup):
    yield Figure("speed", 2.5, "m/s")


def failing(_setup):
    yield Figure("before", 1.0)
    raise RuntimeError("out of\nmemory")


def dying(_setup):
    yield Figure("before", 2.0)
    time.sleep(0.2)
    os._exit(9)


def hanging(_setup):
    yield Figure("before", 3.0)
    time.sleep(600)


def written(folder, name):
    rows = json.loads((folder / f"{name}.json").read_text())
    return [(row["what"], row["value"], row["note"]) for row in rows]


def test_a_part_that_fails_says_why_and_the_others_go_on(tmp_path, capsys, monkeypatch):
    """Prevents minutes of a GPU from being lost by one part that fails, dies or hangs."""
    monkeypatch.setattr(parts, "LEAST_SECONDS", 0.5)
    chosen = [
        Part("failing", 60, failing),
        Part("dying", 60, dying),
        Part("hanging", 2, hanging),
        Part("good", 60, good),
    ]
    began = time.monotonic()
    assert parts.measure(chosen, SETUP, tmp_path / "out", 120) == 1
    assert time.monotonic() - began < 60
    folder = tmp_path / "out"
    why = "RuntimeError: out of memory"
    assert written(folder, "failing") == [("before", 1.0, ""), ("failing", None, why)]
    assert written(folder, "dying") == [
        ("before", 2.0, ""),
        ("dying", None, "its process ended with status 9"),
    ]
    assert written(folder, "hanging") == [
        ("before", 3.0, ""),
        ("hanging", None, "stopped after 2 s"),
    ]
    assert written(folder, "good") == [("speed", 2.5, "")]
    assert "good: speed: 2.5 m/s" in capsys.readouterr().out
    table = (folder / "table.md").read_text()
    assert "| good | speed | 2.5 m/s |  |" in table
    assert f"| failing | failing |  | {why} |" in table


def test_no_part_begins_without_time(tmp_path):
    """Prevents a measurement that takes longer than the machine is lent for."""
    assert parts.measure([Part("good", 60, good)], SETUP, tmp_path, 0) == 1
    assert written(tmp_path, "good") == [("good", None, "not begun: no time was left")]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--check", "--rehearse"], "--check takes no flags of the measurements"),
        (["--size", "small"], "--device and --size are the check's"),
        (["--only", "nothing"], "invalid choice: 'nothing'"),
    ],
)
def test_flags_that_would_be_ignored(flags, says, monkeypatch, capsys):
    """Prevents a flag without effect."""
    monkeypatch.setattr("sys.argv", ["gpu", *flags])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.slow
def test_the_rehearsal_runs_every_part(tmp_path, run_script):
    """Prevents a part that first breaks on the machine that it is for, which has few packages."""
    code = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({NOT_ON_A_GPU_MACHINE}));"
        f"sys.argv[1:] = ['--rehearse', '--out', {str(tmp_path)!r}];"
        "runpy.run_module('benchmarks.gpu', run_name='__main__')"
    )
    ended = run_script("-c", code, timeout=500)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-3000:]
    for part in command.PARTS:
        figures = written(tmp_path, part.name)
        numbers = [value for _, value, _ in figures if value is not None]
        assert numbers or part.name in {"liger", "fine-tuning-harness"}, figures
    assert "14 of 14 parts ended well" in ended.stdout
