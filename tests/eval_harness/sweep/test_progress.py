"""What is seen of a sweep at work: whole lines in a log, one line in a terminal."""

import os
import re
import struct
import subprocess
import sys

import pytest
from places import ROOT

from eval_harness.sweep import progress
from eval_harness.sweep.progress import shortened, view

NAMES = ("distilbert on RTE, seed 3", "distilbert on CoLA, seed 1", "bert on CoLA, seed 2")


@pytest.mark.parametrize(
    ("names", "room", "shown"),
    [
        (NAMES, 200, ", ".join(NAMES)),
        (NAMES, 56, "distilbert on RTE, seed 3, distilbert on CoLA, seed 1 +1"),
        (NAMES, 55, "distilbert on RTE, seed 3 +2"),
        (NAMES, 5, "distilbert on RTE, seed 3 +2"),
        (NAMES[:1], 5, "distilbert on RTE, seed 3"),
        ((), 5, ""),
    ],
)
def test_names_that_have_no_room_are_counted(names, room, shown):
    """Prevents names that push the bar out of its line, and workers that nobody is told of."""
    assert shortened(names, room) == shown


def test_a_log_gets_a_line_now_and_then(monkeypatch, capsys):
    """Prevents control characters in a log, a line per step, and a log that says nothing."""
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    shown = view()
    shown.show(0.0, 8.0, "0/4 runs", NAMES[:1])
    assert capsys.readouterr().err == ""
    clock[0] += 60
    shown.show(2.0, 8.0, "1/4 runs", NAMES[:2])
    clock[0] += 30
    shown.show(3.0, 8.0, "1/4 runs", NAMES[:2])
    assert capsys.readouterr().err == (
        "1/4 runs, 25% in 01:00, about 03:00 left; "
        "distilbert on RTE, seed 3, distilbert on CoLA, seed 1\n"
    )
    shown.show(8.0, 8.0, "4/4 runs, 1 failed", ())
    shown.close(is_complete=True)
    assert capsys.readouterr().err == "4/4 runs, 1 failed in 01:30\n"


def test_an_interruption_adds_no_line_to_a_log(capsys):
    """Prevents two lines about the same end."""
    shown = view()
    shown.show(1.0, 8.0, "1/4 runs", ())
    shown.close(is_complete=False)
    assert capsys.readouterr().err == ""


ON_A_TERMINAL = """
import sys, time
from eval_harness.sweep import progress
progress._BAR_SECONDS = 0.0
shown = progress.view()
for done in range(9):
    shown.show(done, 8.0, f"{done // 2}/4 runs", sys.argv[1:])
    time.sleep(0.02)
progress.write_line("a line above the bar")
shown.close(is_complete=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize("columns", [40, 80, 160])
def test_the_bar_keeps_to_its_line(columns):
    """Prevents a bar that wraps, of which a terminal would then keep every state."""
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL, *NAMES], stderr=theirs, cwd=ROOT
    ) as process:
        os.close(theirs)
        written = b""
        while part := _read(ours):
            written += part
        process.wait(timeout=60)
    os.close(ours)
    lines = written.decode().replace("\r\n", "\n").split("\n")
    states = [state for line in lines for state in line.split("\r")]
    assert max(len(state) for state in states) <= columns
    assert len(lines) == 3, lines  # the line above, the bar, and the end of its line
    assert "a line above the bar" in lines[0]
    assert columns == 40 or any("distilbert on RTE, seed 3" in state for state in states)
    assert re.search(r"100%\|.*4/4 runs", lines[1])
    assert "seed" not in lines[1].rpartition("\r")[2]


def _read(terminal):
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux's way to say that nobody writes any more
        return b""
