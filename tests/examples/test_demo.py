"""`make demo`: its stages are valid commands, and it can be stopped at any time."""

import importlib.util
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import time

import pytest
from places import ROOT

from angels_share.cli import run_command
from angels_share.flags import parse
from distil_trainer.cli import PRETRAIN
from eval_harness.cli import command

SCRIPT = ROOT / "examples" / "demo.py"
COMMANDS = {
    "run_pretrain_distill.py": PRETRAIN,
    "run_glue.py": command("glue"),
    "run_squad_distill.py": command("squad"),
}


@pytest.fixture
def demo(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    spec = importlib.util.spec_from_file_location("demo_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def stages(demo, monkeypatch):
    """Return a function that sets the stages: a name and a program for each."""

    def give(**programs):
        todo = [demo.Stage(name, f"to {name}", ("-c", code)) for name, code in programs.items()]
        monkeypatch.setattr(demo, "stages", lambda folder: todo)
        monkeypatch.setattr(demo, "_show", lambda folder, seconds: None)

    return give


def test_every_stage_is_a_valid_command(demo, tmp_path):
    """A flag that was renamed would show minutes after the start, in somebody else's hands."""
    for stage in demo.stages(tmp_path):
        words = stage.words
        if words[:2] == ("-m", "eval_harness"):
            used, words = command(words[2]), words[3:]
        else:
            used, words = COMMANDS[words[0]], words[1:]
        parse(used.flags, words, takes_training_flags=used.takes_training_flags)


def test_what_is_done_is_not_done_twice(demo, stages, tmp_path, capsys):
    stages(first="print('said')", second="pass")
    todo = demo.stages(tmp_path)
    done = demo.Stage("done", "to rest", ("-c", "raise SystemExit(3)"), lambda: True)
    demo.stages = lambda folder: [done, *todo]
    assert run_command(demo.COMMAND, ["--folder", str(tmp_path)]) == 0
    assert "to rest: already done" in capsys.readouterr().out
    assert (tmp_path / "logs/first.txt").read_text() == "said\n"


def test_a_stage_that_fails_ends_it_and_its_log_says_why(demo, stages, tmp_path, capfd):
    """Tables of half the models would look like results; the reason is shown and logged."""
    bar = "sys.stderr.write('\\r 10%|#   |\\r 90%|### |\\nthe reason\\n')"
    stages(first=f"import sys; {bar}; sys.exit(2)", second="open('second', 'w')")
    assert run_command(demo.COMMAND, ["--folder", str(tmp_path)]) == 1
    said = capfd.readouterr()
    assert "logs/first.txt" in said.out
    assert "the reason\n" in said.err
    assert (tmp_path / "logs/first.txt").read_text() == " 90%|### |\nthe reason\n"
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["first.txt"]


def test_a_bar_moves_where_somebody_watches(tmp_path):
    """In a pipe the sweep's bar moves once a minute: a stage of minutes would seem to hang."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        demo_of(tmp_path, "import sys; print(sys.stderr.isatty()); sys.stderr.write('x\\n')"),
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        assert os.read(ours, 100).strip() == b"x"
    os.close(ours)
    assert process.returncode == 0
    assert (tmp_path / "logs/one.txt").read_text() == "True\nx\n"


# --- the folder


@pytest.mark.parametrize("name", ["thesis.tex", "logs", "demo.json"])
def test_a_folder_with_something_else_is_left_alone(demo, stages, tmp_path, name):
    """Many a folder holds a `logs`: nothing is written into one that isn't the demo's."""
    (tmp_path / name).mkdir() if name == "logs" else (tmp_path / name).write_text("{}")
    stages(first="pass")
    assert run_command(demo.COMMAND, ["--folder", str(tmp_path)]) == 2
    assert [path.name for path in tmp_path.rglob("*")] == [name]


def test_other_commands_do_not_go_on_in_a_folder(demo, stages, tmp_path, capsys):
    """Else a student of 400 steps would be evaluated beside a teacher of another size."""
    stages(first="pass")
    assert run_command(demo.COMMAND, ["--folder", str(tmp_path)]) == 0
    stages(first="pass;")
    assert run_command(demo.COMMAND, ["--folder", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "another version of this demo" in said
    assert str(tmp_path) in said


def test_the_commands_are_the_same_wherever_the_folder_is(demo, tmp_path):
    """A folder that was moved, or interrupted in its teacher, is still one that goes on."""
    folder = tmp_path / "one"
    demo._prepare(folder)
    (folder / "demo-teacher/checkpoint-400").mkdir(parents=True)
    folder.rename(tmp_path / "two")
    demo._prepare(tmp_path / "two")


@pytest.mark.parametrize("how", ["gone", "changed"])
def test_nothing_goes_on_from_another_teacher(demo, tmp_path, monkeypatch, capsys, how):
    """Tables of a new teacher and an old one's student would look like results."""
    teacher = tmp_path / "demo-teacher/model.safetensors"
    monkeypatch.setattr(demo, "_show", lambda folder, seconds: None)
    make = f"import pathlib; p = pathlib.Path({str(teacher)!r}); p.parent.mkdir(); p.touch()"
    todo = [demo.Stage("one", "", ("-c", make), teacher.is_file, output="demo-teacher")]
    monkeypatch.setattr(demo, "stages", lambda folder: todo)
    words = ["--folder", str(tmp_path)]
    assert run_command(demo.COMMAND, words) == run_command(demo.COMMAND, words) == 0
    teacher.unlink() if how == "gone" else teacher.write_text("other")
    capsys.readouterr()
    assert run_command(demo.COMMAND, words) == 2
    assert str(teacher) in capsys.readouterr().err


@pytest.mark.parametrize("record", ["{}", "[]", "{", '{"status": "interrupted"}'])
def test_a_record_that_says_nothing_is_of_nothing_complete(demo, tmp_path, record):
    (tmp_path / "demo-teacher").mkdir()
    (tmp_path / "demo-teacher/distil.json").write_text(record)
    (teacher,) = (stage for stage in demo.stages(tmp_path) if stage.name == "teacher")
    assert not teacher.is_done()


# --- signals


def demo_of(folder, stage):
    """The command line of a demo with one stage: a program."""
    code = (
        f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); import demo\n"
        f"demo.stages = lambda folder: [demo.Stage('one', 'one', ('-c', {stage!r}))]\n"
        "demo._show = lambda folder, seconds: None\n"
        f"sys.exit(demo.run_command(demo.COMMAND, [{str(folder)!r}]))"
    )
    return [sys.executable, "-c", code]


def until_ready(process, log):
    end = time.monotonic() + 60
    while not (log.exists() and "ready" in log.read_text()):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("whom", ["the demo", "the group"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_reaches_the_command_once_and_is_waited_for(tmp_path, number, status, whom):
    """The command writes a checkpoint first: a second signal would end it in the middle.

    A terminal's Ctrl-C goes to the whole group, `kill` to the demo alone.
    """
    stage = (
        "import signal, sys, time\n"
        "def stop(*_):\n"
        "    print('heard', flush=True), time.sleep(1), print('kept'), sys.exit(1)\n"
        f"signal.signal({int(number)}, stop)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    folder = tmp_path / "a folder"
    with subprocess.Popen(
        demo_of(folder, stage), stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        log = folder / "logs/one.txt"
        until_ready(process, log)
        (os.killpg if whom == "the group" else os.kill)(process.pid, number)
        said, _ = process.communicate(timeout=30)
    assert process.returncode == status
    assert log.read_text() == "ready\nheard\nkept\n"
    line = said.splitlines()[-1]
    assert "interrupted" in line
    assert shlex.split(line.partition("to continue: ")[2]) == [
        sys.executable,
        str(SCRIPT),
        str(folder),
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_died_of_a_signal_was_interrupted(demo, stages, tmp_path, capsys, number):
    """Prevents "failed; its log says more", where there is nothing to say."""
    stages(first=f"import os, signal; signal.signal({int(number)}, signal.SIG_DFL); "
                 f"os.kill(os.getpid(), {int(number)})")  # fmt: skip
    assert run_command(demo.COMMAND, ["--folder", str(tmp_path)]) == 128 + number
    assert "interrupted" in capsys.readouterr().out


def test_nobody_else_begins_while_a_command_lives_on(demo, stages, tmp_path, capsys):
    """After a `kill -9` of the demo its training goes on: two would write into one folder."""
    stage = "import os, time; print(os.getpid(), 'ready', flush=True); time.sleep(60)"
    with subprocess.Popen(demo_of(tmp_path, stage), stdout=subprocess.DEVNULL) as process:
        until_ready(process, tmp_path / "logs/one.txt")
        process.kill()
    left = int((tmp_path / "logs/one.txt").read_text().split()[0])
    record = tmp_path / "demo.json"
    stages(first="pass")
    record.write_text(
        json.dumps({**json.loads(record.read_text()), "commands": hash_of_commands(demo)})
    )
    words = ["--folder", str(tmp_path)]
    try:
        assert run_command(demo.COMMAND, words) == 2
        assert f"{tmp_path} is in use by another process" in capsys.readouterr().err
    finally:
        os.kill(left, signal.SIGKILL)
    end = time.monotonic() + 30
    while (status := run_command(demo.COMMAND, words)) == 2:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert status == 0


def hash_of_commands(demo):
    return demo.hash_of([stage.words for stage in demo.stages(None)])
