"""Ctrl-C and SIGTERM: raised once, and never where something is being put in order."""

import os
import signal
import threading

import pytest

from eval_harness.interrupts import Interrupts


def interrupt(number=signal.SIGINT):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_it_waits_until_things_are_in_order(number, raised):
    """Prevents a process that was started and is known to nobody; also where a thread hears it."""
    over = threading.Event()
    threading.Thread(target=over.wait).start()  # as a bar has one: no mask of ours is its
    steps = []

    def work():
        with Interrupts() as interrupts:
            with interrupts.held():
                with interrupts.held():
                    interrupt(number)
                    steps.append("inner")
                steps.append("outer")
            steps.append("after")

    with pytest.raises(raised) as caught:
        work()
    over.set()
    assert steps == ["inner", "outer"]
    assert number == signal.SIGINT or caught.value.code == 143


def test_only_the_first_is_raised():
    """Prevents a second Ctrl-C from ending what the first began, and a later one from no effect."""
    before = signal.getsignal(signal.SIGINT)
    steps = []

    def work():
        with Interrupts():
            try:
                interrupt()
            finally:
                interrupt()
                interrupt(signal.SIGTERM)
                steps.append("in order")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["in order"]
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt):
        interrupt()


def test_what_nohup_keeps_away_stays_away(monkeypatch):
    """Prevents a sweep in the background from being ended by a Ctrl-C that isn't for it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts():
            interrupt()
    finally:
        signal.signal(signal.SIGINT, before)
