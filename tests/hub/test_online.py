"""`make online`: each line ends by itself, nothing stays on the Hub, no token is shown."""

import io
import os
import re
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet
import pytest
import tiny
import worlds
from example_scripts import EXAMPLES, example_module
from hub_server import status
from on_the_hub import DISTILBERT, data_files, model_files
from places import ROOT

from angels_share.cli import run_command
from angels_share.errors import UserError

SHORT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
OF_DEVICES = ("distil on", "fine-tune on", "distil in two", "a made-up")
"""How the lines that need no Hub begin."""


@pytest.fixture
def online():
    with example_module("online") as module:
        yield module


@pytest.fixture
def lines(online, monkeypatch, tmp_path, capsys):
    """Tries these functions instead of the real lines; returns the status and what was printed."""

    def tried(**functions):
        monkeypatch.setattr(online, "LINES", functions)
        ended = run_command(online.COMMAND, [str(tmp_path / "logs")])
        return ended, capsys.readouterr().out.splitlines()

    return tried


@pytest.fixture
def writer(server, tmp_path, monkeypatch):
    """A Hub that this process uses, whose token may write."""
    server.token_of_me = server.token("me")
    server.use(monkeypatch, tmp_path / "home", token=server.token_of_me)
    return server


def put_on(hub, folder):
    """Put what the lines read on a Hub."""
    hub.add(DISTILBERT, model_files(folder / "m", tiny.distilbert(2), tiny.wordpiece(worlds.WORDS)))
    hub.add("nyu-mll/glue", data_files(folder / "d", "rte"), what="dataset")
    buffer = io.BytesIO()
    texts = [" ".join(worlds.WORDS)] * 300
    pyarrow.parquet.write_table(pa.table({"text": texts}), buffer)
    config = "wikitext-2-raw-v1"
    files = {f"{config}/train-00000-of-00001.parquet": buffer.getvalue()}
    paths = f"[{{split: train, path: {config}/train-*}}]"
    card = f"---\nconfigs:\n- config_name: {config}\n  data_files: {paths}\n---\n"
    hub.add("Salesforce/wikitext", {**files, "README.md": card.encode()}, what="dataset")
    hub.add("meta-llama/Llama-3.2-1B", model_files(folder / "g"), gated="manual")


def typed(hub, tmp_path, **more):
    """Type the command as a user would; return its status, its lines and all that it wrote."""
    environment = {**os.environ, **SHORT, **hub.environment(tmp_path / "home"), **more}
    (tmp_path / "tmp").mkdir()
    ended = subprocess.run(
        [sys.executable, EXAMPLES / "online.py", tmp_path / "logs"], cwd=ROOT,
        env=environment | {"TMPDIR": str(tmp_path / "tmp")}, capture_output=True, text=True,
        timeout=500, check=False,
    )  # fmt: skip
    logs = [path.read_text() for path in (tmp_path / "logs").glob("*.txt")]
    return ended, "\n".join([ended.stdout, ended.stderr, *logs])


@pytest.mark.slow
def test_all_that_needs_a_hub_passes_on_the_tests_own(server, tmp_path):
    """Prevents a script that fails by itself at the one chance to try it on the real Hub."""
    put_on(server, tmp_path)
    token = server.token("me")
    ended, written = typed(server, tmp_path, HF_TOKEN=token)
    assert ended.returncode == 0, written
    said = dict(line.split(": ", 1) for line in ended.stdout.splitlines())
    lines = [line for line in ended.stdout.splitlines() if not line.startswith("throwaway")]
    of_the_hub = [line for line in lines[:-1] if not line.startswith(OF_DEVICES)]
    assert len(of_the_hub) == 7
    assert all(": passed (" in line for line in of_the_hub)
    assert said["distil on the CPU"].startswith("passed")
    assert said["distil in two processes by torchrun"].startswith("passed (two CPU processes")
    assert said["distil on one GPU"] == "not tried: torch sees no GPU here"
    assert "0 failed" in lines[-1]
    assert token not in written
    assert not [name for _, name in server._repos if name.startswith("me/")]
    assert len(server.asked("/api/repos/create", "POST")) == 1
    assert server.asked("/api/repos/create", "POST")[0].json()["visibility"] == "private"
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.slow
def test_what_fails_on_the_hub_stops_nothing_else(online, lines, writer, tmp_path):
    """Prevents one broken line from hiding what the others would have told, or a repository."""
    put_on(writer, tmp_path)
    writer.repo("meta-llama/Llama-3.2-1B").gated = False  # its line fails: nobody is refused
    writer.fail("/commit/", *[status(403, "not yours")] * 9)

    def make(trial):
        tiny.folder(trial.work / "student-cpu", tiny.distilbert(), tiny.wordpiece())
        return "made"

    of_the_hub = (online.meet_gate, online.push, online.read_back, online.delete)
    ended, said = lines(make=make, **{each.__name__: each for each in of_the_hub})
    assert ended == 1
    assert said[1].startswith("meet_gate: failed: status 0")
    assert re.match(r"throwaway repository.*/me/angels-share-online-\w{8}$", said[2])
    assert said[3].startswith("push: failed: ")
    assert said[3].endswith("(log: " + str(tmp_path / "logs" / "03-push.txt)"))
    assert said[4] == "read_back: not tried: nothing was pushed"
    assert said[5].startswith("delete: passed (me/")
    assert writer.asked("/api/repos/create", "POST")  # so there was something to delete
    assert not [name for _, name in writer._repos if name.startswith("me/")]


def test_each_line_ends_by_itself(lines, online, tmp_path):
    """Prevents an unexpected error of one line from ending the script, or from status 0."""

    def fails(trial):
        trial.run("-c", "print('much'); raise SystemExit('the reason')")

    def breaks(trial):
        raise ZeroDivisionError("by\nzero")

    def skips(trial):
        trial.require("a-teacher")

    ended, said = lines(a=fails, b=breaks, c=skips, d=lambda trial: "so", e=lambda trial: trial.run(
        "-c", "print(1)"))  # fmt: skip
    logs = tmp_path / "logs"
    assert ended == 1
    assert said[0] == f"a: failed: the reason (log: {logs}/01-a.txt)"
    assert said[1] == f"b: failed: ZeroDivisionError: by zero (log: {logs}/02-b.txt)"
    assert said[2] == "c: not tried: a-teacher is missing: the line that makes it didn't pass"
    assert [line.startswith("passed (") for line in (said[3][3:], said[4][3:])] == [True, True]
    assert said[5] == f"2 passed, 2 failed, 1 not tried; logs: {logs}"
    assert "the reason" in (logs / "01-a.txt").read_text()


def test_without_failures_the_status_is_0(lines, online):
    """Prevents a machine with nothing to try from counting as a broken project."""

    def skips(trial):
        raise online.NotTriedError("no GPU")

    assert lines(a=skips) == (0, ["a: not tried: no GPU", *lines(a=skips)[1][1:]])


def test_a_token_that_a_command_prints_is_hidden(lines, monkeypatch, tmp_path):
    """Prevents a log with a token in it, which somebody would attach to an issue."""
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijkl")
    code = (
        "import os; print('see', os.environ['HF_TOKEN']); raise SystemExit(os.environ['HF_TOKEN'])"
    )
    ended, said = lines(a=lambda trial: trial.run("-c", code), b=lambda trial: "hf_abcdefghijkl")
    assert ended == 1
    assert said[0].startswith("a: failed: the token stood in the output")
    assert said[1].startswith("b: passed (***")
    assert "see ***" in (tmp_path / "logs" / "01-a.txt").read_text()
    assert "hf_abc" not in "".join(said) + (tmp_path / "logs" / "01-a.txt").read_text()


def begin_a_push(hub, number=signal.SIGTERM):
    """Return a line that makes a repository and is then interrupted."""

    def line(trial):
        hub.add("me/thrown-away", {})
        trial.repo = "me/thrown-away"
        os.kill(os.getpid(), number)
        time.sleep(5)  # the signal comes first

    return line


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
def test_an_interrupted_push_leaves_no_repository(number, expected, lines, writer):
    """Prevents repositories that pile up in the account of who stops the script."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the tests run under nohup
    try:
        ended, said = lines(a=begin_a_push(writer, number))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert ended == expected
    assert said == ["me/thrown-away is deleted"]
    assert ("model", "me/thrown-away") not in writer._repos


def test_a_repository_that_cannot_be_deleted_is_named(lines, writer):
    """Prevents one that stays without anybody knowing its name."""
    writer.fail("/api/repos/delete", *[status(403, "not now")] * 9)
    ended, said = lines(a=begin_a_push(writer))
    assert ended == 143
    assert said[0].startswith("me/thrown-away could not be deleted: ")
    assert said[0].endswith(f"delete it on {writer.endpoint}/me/thrown-away/settings")


def test_a_command_ends_with_the_script(online, tmp_path):
    """Prevents a training that goes on, unseen, after its script was interrupted."""
    trial = online.Trial(tmp_path, "")
    code = f"import os, time; open('{tmp_path}/pid', 'w').write(str(os.getpid())); time.sleep(60)"

    def interrupt(_number, _frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
        while True:
            try:
                trial.run("-I", "-S", "-c", code)
            except KeyboardInterrupt:
                if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
                    break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_without_a_network_lines_are_not_tried_at_once(online, tmp_path, server, monkeypatch):
    """Prevents minutes of retries, and "failed" where there was nothing to try."""
    server.use(monkeypatch, tmp_path / "home")
    with server.gone():
        trial = online.Trial(tmp_path, "")
        started = time.monotonic()
        for line in (online.fetch, online.use_offline, online.meet_gate, online.push):
            with pytest.raises(
                online.NotTriedError, match=r"the Hub can't be used: .*can't be reac"
            ):
                line(trial)
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("rights", "reason"), [(None, "no token"), ({"can_write": False}, "may only read")]
)
def test_a_push_needs_a_token_that_may_write(rights, reason, online, server, tmp_path, monkeypatch):
    """Prevents a failure where the user has not logged in, or only to read."""
    server.add(DISTILBERT, {})
    token = None if rights is None else server.token("me", **rights)
    server.use(monkeypatch, tmp_path / "home", token=token)
    trial = online.Trial(tmp_path, "")
    with pytest.raises(online.NotTriedError, match=reason):
        online.push(trial)
    assert trial.repo is None


@pytest.mark.parametrize("number", [401, 500])
def test_a_hub_that_answers_badly_is_a_failure(number, online, server, tmp_path, monkeypatch):
    """Prevents a Hub that refuses us from being taken for no network, and its lines skipped."""
    server.use(monkeypatch, tmp_path / "home")
    server.fail("/api/models/", *[status(number)] * 9)
    online.Trial(tmp_path, "").require_hub()


def test_a_loss_far_from_the_cpus_fails(online, tmp_path, monkeypatch):
    """Prevents a GPU that computes something else from passing, and a CPU from passing for one."""
    losses = {"student-cpu": 8.0, "near": 8.05, "far": 8.5, "nan": float("nan")}
    monkeypatch.setattr(online.Trial, "loss", lambda self, name: losses[name])
    monkeypatch.setattr(online.Trial, "device", lambda self, name: "cuda:0")
    trial = online.Trial(tmp_path, "")
    (tmp_path / "student-cpu").mkdir()
    assert "8.0500" in online._compared(trial, "near", 0.01, away_from_cpu=True)
    for name in ("far", "nan"):
        with pytest.raises(online.FailedError, match="held-out loss"):
            online._compared(trial, name, 0.01, away_from_cpu=True)
    with pytest.raises(online.FailedError, match="trained on cuda"):
        online._compared(trial, "near", 0.01, away_from_cpu=False)


def test_a_folder_that_cannot_be_written_is_refused(online, tmp_path):
    """Prevents a traceback for a folder's name that is a file's."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError):
        online.run(online.COMMAND.parse([str(tmp_path / "file")]))
