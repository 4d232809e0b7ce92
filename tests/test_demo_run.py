"""`make demo`: its commands are ones that the doors take, and it can be stopped at any time."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from angels_share.cli import open_door
from angels_share.flags import parse
from distil_trainer.cli import PRETRAIN_DOOR
from eval_harness.cli import GLUE_DOOR, ROOMS, SQUAD_DOOR

SCRIPT = Path(__file__).parent.parent / "examples" / "demo.py"
DOORS = {
    "run_pretrain_distill.py": PRETRAIN_DOOR,
    "run_glue.py": GLUE_DOOR,
    "run_squad_distill.py": SQUAD_DOOR,
}


@pytest.fixture
def demo():
    spec = importlib.util.spec_from_file_location("demo_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def stages(demo, monkeypatch):
    """Sets what there is to do: names and programs."""

    def give(**programs):
        todo = [demo.Stage(name, f"to {name}", ("-c", code)) for name, code in programs.items()]
        monkeypatch.setattr(demo, "stages", lambda folder: todo)
        monkeypatch.setattr(demo, "_show", lambda folder, seconds: None)

    return give


def test_every_stage_is_a_command_that_its_door_takes(demo, tmp_path):
    """A flag that was renamed would show minutes after the start, in somebody else's hands."""
    for stage in demo.stages(tmp_path):
        door, words = DOORS.get(stage.words[0]), stage.words[1:]
        if door is None:
            assert stage.words[:2] == ("-m", "eval_harness")
            door, words = ROOMS[stage.words[2]], stage.words[3:]
        parse(door.flags, words, takes_training_flags=door.takes_training_flags)


def test_what_is_done_is_not_done_twice(demo, stages, tmp_path, capsys):
    stages(first="print('said')", second="pass")
    todo = demo.stages(tmp_path)
    done = demo.Stage("done", "to rest", ("-c", "raise SystemExit(3)"), lambda: True)
    demo.stages = lambda folder: [done, *todo]
    assert open_door(demo.DOOR, ["--folder", str(tmp_path)]) == 0
    assert "to rest: done before" in capsys.readouterr().out
    assert (tmp_path / "logs/first.txt").read_text() == "said\n"


def test_a_stage_that_fails_ends_it_and_names_its_log(demo, stages, tmp_path, capsys):
    """Tables of half the models would look like results."""
    stages(first="raise SystemExit(2)", second="open('second', 'w')")
    assert open_door(demo.DOOR, ["--folder", str(tmp_path)]) == 1
    assert "logs/first.txt" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["first.txt"]


def test_a_folder_with_something_else_is_left_alone(demo, stages, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("mine")
    stages(first="pass")
    assert open_door(demo.DOOR, ["--folder", str(tmp_path)]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_reaches_the_command_and_is_waited_for(tmp_path, number, status):
    """The command writes a checkpoint first: killed a quarter of a second later, it would not."""
    stage = (
        "import signal, sys, time\n"
        "def stop(*_):\n"
        f"    time.sleep(1), print('kept'), sys.exit({status})\n"
        f"signal.signal({int(number)}, stop)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); import demo\n"
        f"demo.stages = lambda folder: [demo.Stage('one', 'one', ('-c', {stage!r}))]\n"
        f"sys.exit(demo.open_door(demo.DOOR, [{str(tmp_path)!r}]))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        log = tmp_path / "logs/one.txt"
        while not (log.exists() and "ready" in log.read_text()):
            assert process.poll() is None
        if number == signal.SIGINT:  # a terminal tells the whole group
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        said, _ = process.communicate(timeout=30)
    assert process.returncode == status
    assert "kept" in log.read_text()
    assert "interrupted" in said
