"""`make demo`: its stages are valid commands, two run at a time, and it can be stopped any time."""

import fcntl
import importlib
import json
import os
import pty
import random
import re
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from example_scripts import example_module
from places import ROOT

from angels_share.ablations import ABLATIONS
from angels_share.cli import run_command
from angels_share.flags import parse
from distil_trainer.cli import PRETRAIN
from distil_trainer.pretrain import _students
from eval_harness.cli import command

SCRIPT = ROOT / "examples" / "demo.py"
COMMANDS = {
    "run_pretrain_distill.py": PRETRAIN,
    "run_glue.py": command("glue"),
    "run_squad_distill.py": command("squad"),
}
EDGE = "examples/demo_edge.py"
SMALL = (sys.executable, "-I", "-S", "-c")
"""A Python that starts at once: it imports nothing that isn't asked for."""


@pytest.fixture
def commands(monkeypatch):
    """The module that runs commands, which looks at them so often that a test needs no patience."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    module = importlib.import_module("commands")
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.01)
    return module


@pytest.fixture
def demo(commands):
    with example_module("demo") as module:
        yield module


@pytest.fixture
def stages(demo, monkeypatch):
    """Return a function that sets the stages: a name and a program, or a stage, for each."""

    def give(**programs):
        todo = [
            demo.Stage(name, f"to {name}", ("-c", code)) if isinstance(code, str) else code
            for name, code in programs.items()
        ]
        monkeypatch.setattr(demo, "stages", lambda folder: todo)
        monkeypatch.setattr(demo, "_show", lambda *_: None)

    return give


def run(demo, folder):
    return run_command(demo.COMMAND, ["--folder", str(folder)])


def edge_command():
    with example_module("demo_edge") as module:
        return module.COMMAND


def parsed(stage):
    """Return the options that a stage's command line gives its command."""
    words = stage.words
    if words[:2] == ("-m", "eval_harness"):
        used, words = command(words[2]), words[3:]
    else:
        used, words = (COMMANDS | {EDGE: edge_command()})[words[0]], words[1:]
    return parse(used.flags, words, takes_training_flags=used.takes_training_flags)


def named(demo, folder):
    """Return the real stages by name."""
    return {stage.name: stage for stage in demo.stages(folder)}


# --- the stages


def test_every_stage_is_a_valid_command(demo, tmp_path):
    """A flag that was renamed would show minutes after the start, in somebody else's hands."""
    todo = demo.stages(tmp_path)
    for stage in todo:
        parsed(stage)
    assert {"probe", "report", "speed"} <= {stage.name for stage in todo}
    assert len({stage.name for stage in todo}) == len(todo)


def test_a_stage_needs_stages_that_come_earlier(demo, tmp_path):
    """Prevents a stage that never starts, and a list whose order says nothing."""
    before = []
    for stage in demo.stages(tmp_path):
        assert set(stage.needs) <= set(before), stage.name
        before.append(stage.name)


def all_needs(todo):
    needed = {}
    for stage in todo:
        needed[stage.name] = {*stage.needs}.union(*(needed[name] for name in stage.needs))
    return needed


def test_a_stage_needs_whatever_writes_what_it_reads(demo, tmp_path):
    """Prevents a student that is evaluated while it is still being trained, or not there yet."""
    todo = demo.stages(tmp_path)
    needed = all_needs(todo)
    for stage in todo:
        paths = [Path(word) for word in stage.words if word.startswith(str(tmp_path))]
        writers = [
            other.name
            for other in todo
            for output in other.output
            if other is not stage
            and any(tmp_path / output in (path, *path.parents) for path in paths)
        ]
        assert set(writers) <= needed[stage.name], stage.name
    assert needed["report"] == {stage.name for stage in todo} - {"report"}


def test_what_a_stage_writes_is_its_own(demo, tmp_path):
    """Prevents two stages that run side by side from writing into one folder."""
    outputs = [Path(output) for stage in demo.stages(tmp_path) for output in stage.output]
    for one in outputs:
        assert [other for other in outputs if one in (other, *other.parents)] == [one]


def test_models_are_timed_with_nothing_beside_them(demo, tmp_path):
    """Prevents a speed-up that is another command's share of the cores."""
    assert named(demo, tmp_path)["speed"].slots == 2


def test_all_students_of_a_table_see_the_same(demo, tmp_path):
    """Prevents students that differ in their steps or their text, and not only in the loss."""
    todo = [stage for stage in demo.stages(tmp_path) if stage.words[0] == "run_pretrain_distill.py"]
    students = [parsed(stage) for stage in todo if stage.name != "teacher"]
    assert len(students) == 3
    assert len({repr(options.training) for options in students}) == 1
    for name in ("corpus", "corpus_dir", "mlm_probability", "tokens_per_batch", "min_tokens"):
        assert len({repr(options.values[name]) for options in students}) == 1


def trained_by(stage):
    """Return the folders of the models that a stage trains."""
    options = parsed(stage)
    return [Path(options.output_dir, student.place) for student in _students(options)]


def finish(folder, record='{"status": "complete"}'):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "distil.json").write_text(record)


@pytest.mark.parametrize("name", ["teacher", "no-teacher", "students-1", "students-2"])
def test_a_training_is_done_if_all_its_models_are(demo, tmp_path, name):
    """Prevents a demo that goes on without a student, and one that trains the same for ever."""
    stage = named(demo, tmp_path)[name]
    folders = trained_by(stage)
    assert len(folders) == stage.bars
    for folder in folders:
        assert not stage.is_done()
        finish(folder)
        assert any(tmp_path / output in (folder, *folder.parents) for output in stage.output)
    assert named(demo, tmp_path)[name].is_done()
    finish(folders[-1], '{"status": "interrupted"}')
    assert not stage.is_done()


def test_a_training_that_was_interrupted_goes_on(demo, tmp_path):
    """Prevents a minute's training from beginning again, or from a checkpoint that isn't there."""
    for name in ("teacher", "no-teacher", "students-1", "students-2"):
        resumes = parsed(named(demo, tmp_path)[name]).resume_from_checkpoint
        assert bool(resumes) == (name != "teacher")  # that of several ones is for each that has any
    (tmp_path / "demo-teacher/checkpoint-400").mkdir(parents=True)
    assert parsed(named(demo, tmp_path)["teacher"]).resume_from_checkpoint == "latest"


def test_what_is_evaluated_was_trained(demo, tmp_path):
    """Prevents a folder's name that one stage writes otherwise than another reads."""
    todo = named(demo, tmp_path)
    made = {
        folder
        for stage in todo.values()
        if stage.words[0] == "run_pretrain_distill.py"
        for folder in trained_by(stage)
    }
    for name in ("few-shot", "squad", "squad-d", "speed"):
        assert {Path(model) for model in parsed(todo[name]).model} <= made, name
    probe = parsed(todo["probe"])
    assert Path(probe.teacher) == tmp_path / "demo-teacher"
    assert {Path(model) for model in probe.model} | {Path(probe.teacher)} == made
    assert len(probe.model) == len(made) - 1 == 3 * (len(ABLATIONS) + 1)
    # The others are compared with the first.
    assert Path(probe.model[0]) == Path(parsed(todo["few-shot"]).model[1])


def test_a_share_is_that_of_the_results_there_should_be(demo, tmp_path):
    """Prevents a bar that stands still for half a minute, or is full long before the end."""
    todo = named(demo, tmp_path)
    for name in ("few-shot", "squad", "squad-d"):
        stage, options = todo[name], parsed(todo[name])
        assert stage.share() <= 0
        tasks = getattr(options, "tasks", None) or ["squad"]
        runs = [
            tmp_path / f"results/runs/{Path(model).name}-12/{task}/{name}/seed-{seed}.json"
            for model in options.model
            for task in tasks
            for seed in options.seeds
        ]
        for path in runs:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
            path.with_suffix(".12.parquet").write_text("")
        assert stage.share() == 1, name
    probe = parsed(todo["probe"])
    for number in range(len(probe.model) + 1):
        assert todo["probe"].share() == pytest.approx(number / (len(probe.model) + 1))
        folder = tmp_path / f"results/probes/model-{number}"
        folder.mkdir(parents=True)
        for kind in ("text", "pairs", *probe.tasks):
            (folder / f"{kind}-12.json").write_text("{}")
    (tmp_path / "results/probes/table.json").write_text("{}")
    assert todo["probe"].share() == 1


# --- two at a time


class Clock:
    """A pretended clock, and commands that take so many of its seconds: their only word."""

    def __init__(self):
        self.now = 0
        self.starts = {}

    def sleep(self, seconds):
        self.now += seconds

    def popen(self, words, *, stdout, **_):
        name = Path(stdout.name).stem
        start = self.starts[name] = self.now
        # What ends is noticed in the same round, and makes room in the next one.
        return SimpleNamespace(poll=lambda: 0 if self.now - start >= words[0] - 1 else None)


@pytest.fixture
def clock(commands, monkeypatch):
    made = Clock()
    times = SimpleNamespace(monotonic=lambda: made.now, sleep=made.sleep)
    monkeypatch.setattr(commands, "time", times)
    monkeypatch.setattr(commands, "subprocess", SimpleNamespace(Popen=made.popen, DEVNULL=None))
    monkeypatch.setattr(commands, "_POLL_SECONDS", 1)
    return made


def job(commands, name, seconds, *needs, slots=1, **more):
    return commands.Job(name, [seconds], needs, slots, seconds, **more)


def run_jobs(commands, folder, jobs, finished=lambda *_: None, watched=lambda *_: None):
    folder.mkdir(exist_ok=True)
    with commands.lock_folder(folder) as lock:
        runner = commands.Runner(jobs, folder, lock, folder=folder, environment=dict(os.environ))
        return runner.run(finished, watched)


def test_the_order_is_that_of_the_list_as_far_as_needs_and_slots_allow(commands, clock, tmp_path):
    """Prevents idle cores beside a queue, and a forecast of another order than the real one."""
    jobs = [
        job(commands, "a", 5),
        job(commands, "b", 1),
        job(commands, "c", 2, "b"),
        job(commands, "both", 2, slots=2),
        job(commands, "d", 1, "both"),
        job(commands, "e", 4),
    ]
    ended = []
    assert run_jobs(commands, tmp_path, jobs, lambda job, _: ended.append(job.name)) is None
    assert clock.starts == {"a": 0, "b": 0, "c": 1, "both": 7, "e": 3, "d": 9}
    assert ended == ["b", "c", "a", "e", "both", "d"]
    assert commands._simulated([(each, each.seconds) for each in jobs], ()) == 10


def drawn_jobs(commands, rng):
    names = [f"job-{number}" for number in range(rng.randrange(1, 10))]
    jobs = []
    for at, name in enumerate(names):
        needs = rng.sample(names[:at], rng.randrange(min(at, 3) + 1))
        jobs.append(job(commands, name, rng.randrange(1, 6), *needs, slots=rng.choice((1, 1, 2))))
    return jobs


def test_the_forecast_is_what_happens(commands, clock, tmp_path):
    """Prevents a bar by another order than the real one; and needs and slots hold for any list."""
    rng = random.Random(0)
    for _ in range(100):
        clock.now, clock.starts = 0, {}
        jobs = drawn_jobs(commands, rng)
        rng.shuffle(jobs)
        assert run_jobs(commands, tmp_path, jobs) is None
        starts = clock.starts
        ends = {each.name: starts[each.name] + each.seconds for each in jobs}
        for each in jobs:
            assert all(ends[name] <= starts[each.name] for name in each.needs)
        for now in range(max(ends.values())):
            busy = [each.slots for each in jobs if starts[each.name] <= now < ends[each.name]]
            assert 0 < sum(busy) <= 2
        forecast = commands._simulated([(each, each.seconds) for each in jobs], ())
        assert forecast == max(ends.values())


def test_the_forecast_goes_on_from_what_is_running(commands):
    """Prevents a bar that counts what is done already, or lets two start beside a whole machine."""
    timed = job(commands, "timed", 4, slots=2)
    last = job(commands, "last", 2, "timed")
    assert commands._simulated([(last, 2)], [(timed, 1.5)]) == 3.5
    beside = job(commands, "beside", 3)
    assert commands._simulated([(last, 2), (beside, 3)], [(timed, 1.5)]) == 4.5
    assert commands._simulated((), ()) == 0


@pytest.mark.parametrize(
    "needs", [{"a": ["b"], "b": ["a"]}, {"a": ["a"], "b": []}, {"a": ["b"], "b": ["c"], "c": ["a"]}]
)
def test_jobs_that_need_one_another_are_refused_before_anything_runs(
    commands, clock, tmp_path, needs
):
    """Prevents a demo that waits for ever with nothing running."""
    jobs = [job(commands, name, 1, *others) for name, others in needs.items()]
    with pytest.raises(ValueError, match=r"need one another: .*'a'"):
        run_jobs(commands, tmp_path, [job(commands, "first", 1), *jobs])
    assert clock.starts == {}


def test_real_commands_run_two_at_a_time(commands, tmp_path):
    """Prevents a command that reads what another is still writing, and three on two cores."""
    times = tmp_path / "times.txt"

    def program(name):
        return (
            "import time\n"
            f"times = open({str(times)!r}, 'a')\n"
            f"begun = time.monotonic(); time.sleep(0.1); ended = time.monotonic()\n"
            f"times.write(f'{name} {{begun}} {{ended}}\\n')"
        )

    needs = {"a": (), "b": (), "c": ("a",), "d": (), "e": ("c", "d"), "f": ("b",)}
    slots = {"d": 2}
    jobs = [
        commands.Job(name, [*SMALL, program(name)], each, slots.get(name, 1))
        for name, each in needs.items()
    ]
    ended = []
    logs = tmp_path / "logs"
    assert run_jobs(commands, logs, jobs, lambda job, seconds: ended.append(seconds)) is None
    lines = [line.split() for line in times.read_text().splitlines()]
    spans = {name: (float(begun), float(end)) for name, begun, end in lines}
    assert set(spans) == set(needs)
    for name, (begun, _) in spans.items():
        assert all(spans[other][1] <= begun for other in needs[name])
        beside = [other for other, (start, end) in spans.items() if start <= begun < end]
        assert sum(slots.get(other, 1) for other in beside) <= 2, beside
    assert all(0 < seconds < 60 for seconds in ended)
    assert {path.name for path in logs.glob("*.txt")} == {f"{name}.txt" for name in needs}


# --- the bar


def test_the_share_never_goes_back_and_ends_at_one(commands, clock, tmp_path):
    """Prevents a bar that runs backwards, whatever commands say of themselves."""
    rng = random.Random(1)
    jobs = [
        job(commands, name, seconds, *needs, share=lambda: rng.uniform(-1, 2))
        for name, seconds, needs in (("a", 9, ()), ("b", 4, ()), ("c", 7, ("b",)), ("d", 3, "ac"))
    ]
    shares = []
    assert run_jobs(commands, tmp_path, jobs, watched=lambda share, _: shares.append(share)) is None
    assert shares == sorted(shares)
    assert shares[0] < 0.6
    assert shares[-1] == 1
    assert all(0 <= share < 1 for share in shares[:-1])


def test_the_share_is_by_time_and_not_by_commands(commands, clock, tmp_path):
    """Prevents a bar that shows a tenth for a command that takes most of the time."""
    long = job(commands, "long", 90, share=lambda: clock.now / 90)
    short = job(commands, "short", 10, "long", share=lambda: 0)
    shares = {}
    run_jobs(
        commands, tmp_path, [long, short],
        watched=lambda share, running: shares.setdefault(running, []).append(share),
    )  # fmt: skip
    assert shares["long"][45] == pytest.approx(0.45)
    assert shares["short"][0] == pytest.approx(0.9)


def test_who_is_running_is_told(commands, clock, tmp_path):
    """Prevents a bar beside which nobody knows what takes so long."""
    said = []
    jobs = [job(commands, "a", 3), job(commands, "b", 2), job(commands, "c", 2, "b")]
    run_jobs(commands, tmp_path, jobs, watched=lambda _, running: said.append(running))
    assert said == ["a, b", "a", "c", ""]


def at_work(commands, log, **more):
    """Return a command at work that has just been started, of a million seconds."""
    given = commands.Job("one", ["one"], seconds=1e6, **more)
    return commands._Running(given, None, log)


def test_a_share_is_read_off_the_log(commands, tmp_path):
    """Prevents a bar that begins again with each of a command's own bars."""
    log = tmp_path / "log.txt"
    running = at_work(commands, log, bars=2)
    assert running.share() == pytest.approx(0, abs=1e-3)  # there is no log yet
    shares = []
    for said in ("loading\n", "\r  0%|  |", "\r 50%|# |", "\r100%|##|\n", "saved\n\r  0%|  |",
                 "\r 40%|# |" + "x" * 3000, "\r100%|##|"):  # fmt: skip
        with log.open("a") as stream:
            stream.write(said)
        shares.append(running.share())
    assert shares == pytest.approx([0, 0, 0.25, 0.5, 0.5, 0.7, 0.99], abs=1e-3)


def test_a_command_that_only_imports_seems_to_move(commands, tmp_path):
    """Prevents a bar that stands still for the seconds in which libraries are imported."""
    running = at_work(commands, tmp_path / "log.txt")
    running.started -= 5e4
    assert running.share() == pytest.approx(0.05, abs=1e-3)
    running.started -= 9e5
    assert running.share() == pytest.approx(0.1)


def test_a_log_keeps_of_a_bar_what_a_terminal_would_show(commands, tmp_path):
    """Prevents a log of a thousand states of one bar, in which nobody finds the reason."""
    log = tmp_path / "log.txt"
    log.write_bytes(
        b"begun\r\n\r  0%|  |\r 50%|# |\r100%|##|\nmore \xff\r\r\n\n\r 10%|#|\r 90%|####|\r\nlast"
    )
    commands._tidy(log)
    assert log.read_bytes() == b"begun\n100%|##|\nmore \xff\n\n 90%|####|\nlast"
    commands._tidy(log)
    assert log.read_bytes() == b"begun\n100%|##|\nmore \xff\n\n 90%|####|\nlast"


def test_output_goes_to_logs_and_only_the_bar_to_the_terminal(demo, stages, tmp_path, capfd):
    """Prevents the output of two commands at once, mixed line by line, with two bars in it."""
    both = "import sys; print('told'); sys.stderr.write('complained\\r 50%|# |\\n')"
    stages(first=both, second=both)
    assert run(demo, tmp_path) == 0
    said = capfd.readouterr()
    assert "told" not in said.out + said.err
    assert "complained" not in said.out + said.err
    assert "50%|#" not in said.err
    assert "demo:   0%|" in said.err
    lines = sorted(line for line in said.out.splitlines() if line)
    assert [re.sub(r"\d+ s$", "N s", line) for line in lines] == [
        "[1/2] to first: N s",
        "[2/2] to second: N s",
    ]
    for name in ("first", "second"):
        assert sorted((tmp_path / f"logs/{name}.txt").read_text().split("\n")) == [
            "", " 50%|# |", "told",
        ]  # fmt: skip


def test_a_bar_moves_where_somebody_watches(tmp_path):
    """A stage of minutes would seem to hang, and a second bar would hide the first."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    stage = (
        "import sys, time\n"
        "print(sys.stderr.isatty())\n"
        "for share in (10, 30, 50, 70, 90):\n"
        "    sys.stderr.write(f'\\r{share:3}%|#|'); sys.stderr.flush(); time.sleep(0.35)\n"
    )
    seen = b""
    with subprocess.Popen(
        demo_of(tmp_path, one=stage), stdout=subprocess.DEVNULL, stderr=theirs
    ) as process:
        os.close(theirs)
        while chunk := read_terminal(ours):
            seen += chunk
    os.close(ours)
    assert process.returncode == 0
    shares = [int(found) for found in re.findall(rb"demo: +(\d+)%", seen)]
    assert shares == sorted(shares)
    assert any(0 < share < 100 for share in shares)
    assert b"one" in seen
    assert set(re.findall(rb"(\w*):? +\d+%", seen)) == {b"demo"}
    assert (tmp_path / "logs/one.txt").read_text().startswith("False\n")


def read_terminal(descriptor):
    try:
        return os.read(descriptor, 4096)
    except OSError:  # Linux's way to say that the other end was closed
        return b""


# --- one after another


def test_what_is_done_is_not_done_twice(demo, stages, tmp_path, capsys):
    """Prevents a demo that was interrupted from beginning again."""
    done = demo.Stage("done", "to rest", ("-c", "raise SystemExit(3)"), lambda: True)
    after = demo.Stage("after", "to follow", ("-c", "print('said')"), needs=("done",))
    stages(done=done, after=after, second="pass")
    assert run(demo, tmp_path) == 0
    said = capsys.readouterr().out
    assert "[1/3] to rest: already done\n" in said
    assert "[2/3] to follow: 0 s\n" in said
    assert (tmp_path / "logs/after.txt").read_text() == "said\n"
    assert not (tmp_path / "logs/done.txt").exists()


def test_after_a_failure_only_the_rest_is_done(demo, stages, tmp_path, capsys):
    """Prevents minutes of repeated training for one mistake in the last command."""
    made, fixed = tmp_path / "made.txt", tmp_path / "fixed.txt"
    make, use = f"open({str(made)!r}, 'a').write('once ')", f"open({str(fixed)!r})"
    first = demo.Stage("first", "to make", ("-c", make), made.is_file)
    second = demo.Stage("second", "to use", ("-c", use), needs=("first",))
    third = demo.Stage("third", "to show", ("-c", "print('shown')"), needs=("second",))
    tmp_path.joinpath("folder").mkdir()
    folder = tmp_path / "folder"
    stages(first=first, second=second, third=third)
    assert run(demo, folder) == 1
    assert not (folder / "logs/third.txt").exists()
    said = capsys.readouterr()
    assert f"No such file or directory: '{fixed}'" in said.err
    fixed.touch()
    assert run(demo, folder) == 0
    assert "to make: already done" in capsys.readouterr().out
    assert made.read_text() == "once "
    assert (folder / "logs/third.txt").read_text() == "shown\n"


def test_a_stage_that_fails_ends_it_and_its_log_says_why(demo, stages, tmp_path, capfd):
    """Tables of half the models would look like results; the reason is shown and logged."""
    bar = "sys.stderr.write('\\r 10%|#   |\\r 90%|### |\\nthe reason\\n')"
    third = demo.Stage("third", "to follow", ("-c", "pass"), needs=("first",))
    stages(
        first=f"import sys; print('\\n'.join('12345678'), flush=True); {bar}; sys.exit(2)",
        third=third,
    )
    assert run(demo, tmp_path) == 1
    said = capfd.readouterr()
    line = said.out.splitlines()[-1]
    assert line.startswith(f"to first: failed; see {tmp_path}/logs/first.txt; to continue: ")
    assert "  6\n  7\n  8\n   90%|### |\n  the reason\n" in said.err
    assert "  5\n" not in said.err
    assert (tmp_path / "logs/first.txt").read_text().endswith("8\n 90%|### |\nthe reason\n")
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["first.txt"]


def waiting(number, *, path=None, status=1):
    """Return a program that says when it is ready, and at a signal keeps something for a while."""
    ready = "print('ready', flush=True)" if path is None else (
        f"from pathlib import Path\nlog = Path({str(path)!r})\n"
        "while not (log.exists() and 'ready\\n' in log.read_text()): time.sleep(0.01)\n"
        "print('ready', flush=True)"
    )  # fmt: skip
    return (
        "import signal, sys, time\n"
        "def stop(number, _):\n"
        "    print('heard', number, flush=True)\n"
        f"    time.sleep(0.5), print('kept'), sys.exit({status})\n"
        f"signal.signal({int(number)}, stop)\n"
        f"{ready}\n"
        "time.sleep(60)\n"
    )


def test_a_command_that_fails_ends_the_other_one(demo, stages, tmp_path, capfd):
    """Prevents a process that nobody waits for: it would write into a folder that seems free."""
    log = tmp_path / "logs/second.txt"
    first = (
        "import sys, time\nfrom pathlib import Path\n"
        f"log = Path({str(log)!r})\n"
        "while not (log.exists() and 'ready\\n' in log.read_text()): time.sleep(0.01)\n"
        "print('the reason'), sys.exit(2)\n"
    )
    stages(first=first, second=waiting(signal.SIGTERM), third="pass")
    assert run(demo, tmp_path) == 1
    assert log.read_text() == f"ready\nheard {int(signal.SIGTERM)}\nkept\n"
    said = capfd.readouterr()
    assert "to first: failed" in said.out
    assert "  the reason\n" in said.err
    assert "kept" not in said.out + said.err
    assert not (tmp_path / "logs/third.txt").exists()


def test_an_error_of_our_own_ends_the_commands(commands, tmp_path):
    """Prevents commands that go on by themselves where their watcher is gone, as by a full disk."""
    log = tmp_path / "one.txt"

    def watched(share, running):
        if log.exists() and "ready\n" in log.read_text():
            raise OSError("no space left")

    jobs = [commands.Job("one", [*SMALL, waiting(signal.SIGTERM)])]
    with pytest.raises(OSError, match="no space left"):
        run_jobs(commands, tmp_path, jobs, watched=watched)
    end = time.monotonic() + 120
    while "kept" not in log.read_text():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_commands_need_no_network_and_use_one_thread(demo, stages, tmp_path, monkeypatch):
    """Prevents two commands that fight for two cores, and a question to a hub that isn't there."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("MINE", "kept")
    names = ("HF_HUB_OFFLINE", "OMP_NUM_THREADS", "MINE")
    stages(one=f"import os, sys; print([os.environ[n] for n in {names}], sys.stdin.read())")
    assert run(demo, tmp_path) == 0
    assert (tmp_path / "logs/one.txt").read_text() == "['1', '1', 'kept'] \n"


# --- the folder


@pytest.mark.parametrize("name", ["thesis.tex", "logs", "demo.json"])
def test_a_folder_with_something_else_is_left_alone(demo, stages, tmp_path, name):
    """Many a folder holds a `logs`: nothing is written into one that isn't the demo's."""
    (tmp_path / name).mkdir() if name == "logs" else (tmp_path / name).write_text("{}")
    stages(first="pass")
    assert run(demo, tmp_path) == 2
    assert [path.name for path in tmp_path.rglob("*")] == [name]


def test_other_commands_do_not_go_on_in_a_folder(demo, stages, tmp_path, capsys):
    """Else a student of 400 steps would be evaluated beside a teacher of another size."""
    stages(first="pass")
    assert run(demo, tmp_path) == 0
    stages(first="pass;")
    assert run(demo, tmp_path) == 2
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
@pytest.mark.parametrize("place", ["demo-teacher", "student/seed-22/none"])
def test_nothing_goes_on_from_another_model(demo, stages, tmp_path, capsys, how, place):
    """Tables of a new teacher and an old one's student would look like results."""
    file = tmp_path / place / "model.safetensors"
    make = (
        f"import pathlib; p = pathlib.Path({str(file)!r}); p.parent.mkdir(parents=True); p.touch()"
    )
    outputs = ("demo-teacher", "student/seed-22", "student/seed-33")
    stages(one=demo.Stage("one", "", ("-c", make), file.is_file, output=outputs))
    assert run(demo, tmp_path) == run(demo, tmp_path) == 0
    file.unlink() if how == "gone" else file.write_text("other")
    capsys.readouterr()
    assert run(demo, tmp_path) == 2
    assert str(file) in capsys.readouterr().err


@pytest.mark.parametrize("record", ["{}", "[]", "{", '{"status": "interrupted"}'])
def test_a_record_that_says_nothing_is_of_nothing_complete(demo, tmp_path, record):
    """Prevents a teacher that was interrupted from being taken for a finished one."""
    finish(tmp_path / "demo-teacher", record)
    assert not named(demo, tmp_path)["teacher"].is_done()


# --- signals


def demo_of(folder, **programs):
    """The command line of a demo with these stages: a program each."""
    todo = [(name, name, ("-c", code)) for name, code in programs.items()]
    code = (
        f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); import demo\n"
        f"demo.stages = lambda folder: [demo.Stage(*each) for each in {todo!r}]\n"
        "demo._show = lambda *_: None\n"
        f"sys.exit(demo.run_command(demo.COMMAND, [{str(folder)!r}]))"
    )
    return [sys.executable, "-c", code]


def until_ready(process, *logs):
    # The line's end is written by itself: a signal between the two would stand in the line.
    end = time.monotonic() + 60
    while not all(log.exists() and "ready\n" in log.read_text() for log in logs):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("whom", ["the demo", "the group"])
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_reaches_each_command_once_and_is_waited_for(tmp_path, number, status, whom):
    """The commands write checkpoints first: a second signal would end them in the middle.

    A terminal's Ctrl-C goes to the whole group, `kill` to the demo alone.
    """
    folder = tmp_path / "a folder"
    programs = {"one": waiting(number), "two": waiting(number, status=0), "three": "pass"}
    with subprocess.Popen(
        demo_of(folder, **programs),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        logs = [folder / f"logs/{name}.txt" for name in ("one", "two")]
        until_ready(process, *logs)
        (os.killpg if whom == "the group" else os.kill)(process.pid, number)
        said, _ = process.communicate(timeout=30)
    assert process.returncode == status
    for log in logs:
        assert log.read_text() == f"ready\nheard {int(number)}\nkept\n"
    assert not (folder / "logs/three.txt").exists()
    line = said.splitlines()[-1]
    assert "interrupted" in line
    assert shlex.split(line.partition("to continue: ")[2]) == [
        sys.executable,
        str(SCRIPT),
        str(folder),
    ]


def test_every_signal_is_forwarded(tmp_path):
    """Prevents a second Ctrl-C, of somebody who won't wait, from being kept from the commands."""
    program = (
        "import signal, time\n"
        "heard = []\n"
        "def stop(number, _):\n"
        "    heard.append(number), print('heard', number, flush=True)\n"
        "signal.signal(2, stop), signal.signal(15, stop), print('ready', flush=True)\n"
        "while len(heard) < 2: time.sleep(0.01)\n"
    )
    logs = [tmp_path / f"logs/{name}.txt" for name in ("one", "two")]
    with subprocess.Popen(
        demo_of(tmp_path, one=program, two=program),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        until_ready(process, *logs)
        process.send_signal(signal.SIGINT)
        while not all("heard" in log.read_text() for log in logs):
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
    assert process.returncode == 130  # the first one counts
    assert [log.read_text() for log in logs] == ["ready\nheard 2\nheard 15\n"] * 2


def test_what_nohup_ignores_stays_ignored(tmp_path):
    """Prevents the demo from ending with the terminal although it was asked not to."""
    program = "import time; print('ready', flush=True); time.sleep(0.7); print('done')"
    words = demo_of(tmp_path, one=program)
    ignoring = (
        f"import os, signal; signal.signal(1, signal.SIG_IGN); os.execv({words[0]!r}, {words!r})"
    )
    with subprocess.Popen(
        [sys.executable, "-c", ignoring], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        until_ready(process, tmp_path / "logs/one.txt")
        process.send_signal(signal.SIGHUP)
        process.wait(timeout=30)
    assert process.returncode == 0
    assert (tmp_path / "logs/one.txt").read_text() == "ready\ndone\n"


@pytest.mark.parametrize("count", [1, 2])
def test_a_signal_reaches_a_command_that_is_just_being_started(
    commands, tmp_path, monkeypatch, count
):
    """Prevents Ctrl-C from being waited out by a command of minutes that never heard of it."""
    started = []

    class Popen(subprocess.Popen):
        def __init__(self, *words, **more):
            super().__init__(*words, **more)
            started.append(self)
            if len(started) == count:
                os.kill(os.getpid(), signal.SIGTERM)

    fake = SimpleNamespace(Popen=Popen, DEVNULL=subprocess.DEVNULL)
    monkeypatch.setattr(commands, "subprocess", fake)
    program = "import time; time.sleep(1.5); print('worked on')"
    jobs = [commands.Job(name, [*SMALL, program]) for name in ("one", "two")]
    job, status = run_jobs(commands, tmp_path, jobs)
    assert (job.name, status) == ("one", 143)
    assert [path.read_text() for path in tmp_path.glob("*.txt")] == [""] * len(started)


def test_a_command_that_dies_of_a_signal_ends_no_other_one(commands, tmp_path, monkeypatch):
    """Prevents a second signal, for a failure that is none, to a command that is still saving.

    The first one dies of the signal at once, before the loop has come round to see it.
    """
    started = []

    class Popen(subprocess.Popen):
        def __init__(self, *words, **more):
            super().__init__(*words, **more)
            started.append(self)
            if len(started) == 2:
                until_ready(self, tmp_path / "one.txt", tmp_path / "two.txt")
                os.kill(os.getpid(), signal.SIGINT)
                started[0].wait(timeout=30)

    fake = SimpleNamespace(Popen=Popen, DEVNULL=subprocess.DEVNULL)
    monkeypatch.setattr(commands, "subprocess", fake)
    dies = "import time; print('ready', flush=True); time.sleep(60)"
    saves = (
        "import signal, time\n"
        "heard = []\n"
        "for number in (2, 15): signal.signal(number, lambda number, _: heard.append(number))\n"
        "print('ready', flush=True)\n"
        "while not heard: time.sleep(0.01)\n"
        "time.sleep(0.5), print(heard)\n"
    )
    jobs = [commands.Job(name, [*SMALL, code]) for name, code in (("one", dies), ("two", saves))]
    _, status = run_jobs(commands, tmp_path, jobs)
    assert status == 130
    assert (tmp_path / "two.txt").read_text() == "ready\n[2]\n"


def test_handlers_are_as_before_afterwards(commands, clock, tmp_path):
    """Prevents a Ctrl-C after the last command, while tables are printed, from doing nothing."""
    before = {number: signal.getsignal(number) for number in commands.SIGNALS}
    during = []
    run_jobs(
        commands, tmp_path, [job(commands, "one", 2)],
        watched=lambda *_: during.append(signal.getsignal(signal.SIGINT)),
    )  # fmt: skip
    assert {number: signal.getsignal(number) for number in commands.SIGNALS} == before
    assert before[signal.SIGINT] not in during


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_died_of_a_signal_was_interrupted(demo, stages, tmp_path, capsys, number):
    """Prevents "failed; its log says more", where there is nothing to say."""
    stages(first=f"import os, signal; signal.signal({int(number)}, signal.SIG_DFL); "
                 f"os.kill(os.getpid(), {int(number)})")  # fmt: skip
    assert run(demo, tmp_path) == 128 + number
    assert "interrupted" in capsys.readouterr().out


def test_a_command_that_was_killed_failed(demo, stages, tmp_path, capsys):
    """Prevents "completed work is saved" where the system ended a command for want of memory."""
    stages(first="import os; print('last words', flush=True); os.kill(os.getpid(), 9)")
    assert run(demo, tmp_path) == 1
    said = capsys.readouterr()
    assert "to first: failed" in said.out
    assert "  last words\n" in said.err


def test_nobody_else_begins_while_a_command_lives_on(demo, stages, tmp_path, capsys):
    """After a `kill -9` of the demo its training goes on: two would write into one folder."""
    stage = "import os, time; print(os.getpid(), 'ready', flush=True); time.sleep(60)"
    with subprocess.Popen(
        demo_of(tmp_path, one=stage), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        until_ready(process, tmp_path / "logs/one.txt")
        process.kill()
    left = int((tmp_path / "logs/one.txt").read_text().split()[0])
    record = tmp_path / "demo.json"
    stages(first="pass")
    record.write_text(
        json.dumps({**json.loads(record.read_text()), "commands": hash_of_commands(demo)})
    )
    try:
        assert run(demo, tmp_path) == 2
        assert f"{tmp_path} is in use by another process" in capsys.readouterr().err
    finally:
        os.kill(left, signal.SIGKILL)
    end = time.monotonic() + 120
    while (status := run(demo, tmp_path)) == 2:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert status == 0


def hash_of_commands(demo):
    return demo.hash_of([stage.words for stage in demo.stages(None)])


# --- what is printed at the end


def test_the_end_fits_a_screen_and_names_what_there_is(demo, tmp_path, monkeypatch, capsys):
    """Prevents a file or folder in the last lines that nobody finds."""
    shown = []

    class Summary:
        def __init__(self, root, no_teacher):
            shown.append((root, no_teacher))

        def text(self):
            return "the summary"

    monkeypatch.setattr(demo, "Summary", Summary)
    table = "| Step | MNLI |\n|---|---|\n| student | 66.7 |\n| ONNX | 66.7 |\n| int8 | 66.1 |\n"
    log = tmp_path / "logs" / "edge.txt"
    log.parent.mkdir()
    log.write_text(f"edge/onnx/model.onnx: 0.7 MB\n\n{table}\n- Scores: the median\n")
    demo._show(tmp_path, 151.4, 253.2)
    lines = capsys.readouterr().out.splitlines()
    assert shown == [(tmp_path / "results", demo.NO_TEACHER)]
    assert "the summary" in lines
    assert f"151 s, 253 CPU seconds. In {tmp_path}:" in lines
    assert set(table.splitlines()) <= set(lines)
    assert len(lines) < 20
    names = re.findall(r"[\w-]+", " ".join(line for line in lines if line.startswith("  ")))
    outputs = {output.split("/")[0] for stage in demo.stages(tmp_path) for output in stage.output}
    assert outputs <= set(names)
    assert Counter(names)["logs"] == 1
    log.write_text("skipped: onnx not installed (the extra `export`)\n")
    demo._show(tmp_path, 151.4, 253.2)
    assert "skipped: onnx not installed" in capsys.readouterr().out
