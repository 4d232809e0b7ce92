"""Leases: one process at a run at a time, and none lost to the dead."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from work_for_sweeps import wait_until

from angels_share.errors import UserError
from eval_harness.sweep.leases import Holder, Lease, Leases

KEY = "bert-0123abcd/rte/89abcdef/seed-1"
OTHER_MACHINE = {"host": "far", "machine": "far away", "pid": 7}


def file_of(root, key=KEY):
    return root / "claims" / f"{key.replace('/', '__')}.json"


def as_if(root, **changes):
    """Rewrites a lease as if another process had made it."""
    path = file_of(root)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def aged(root, seconds):
    """Moves a lease's last sign of life into the past."""
    then = time.time() - seconds
    os.utime(file_of(root), (then, then))


def abandoned(root, **changes):
    """A lease whose owner doesn't touch it any more."""
    with Leases(root).take(KEY, "abandoned"):
        text = file_of(root).read_text()
    file_of(root).write_text(text)
    as_if(root, **changes)


def test_a_run_is_one_process_s_at_a_time(tmp_path):
    """Fault 11: prevents two live workers on one run, and a lease that outlives its run."""
    leases = Leases(tmp_path)
    with leases.take(KEY, "a"):
        held = leases.take(KEY, "b")
        assert isinstance(held, Holder)
        assert str(held).startswith(f"process {os.getpid()} on ")
        with leases.take(KEY.replace("seed-1", "seed-2"), "b"):
            pass
    with leases.take(KEY, "b"):
        pass
    assert not list((tmp_path / "claims").glob("*.json"))


def test_a_dead_process_s_lease_lapses_at_once(tmp_path):
    """Fault 11: prevents two minutes of waiting for a worker of this machine that was killed."""
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom eval_harness.sweep.leases import Leases\n"
        f"Leases(Path(sys.argv[1])).take({KEY!r}, 'dead').__enter__()\n"
        "os.kill(os.getpid(), 9)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) as killed:
        wait_until(file_of(tmp_path).exists, "no lease was made")
        os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)  # dead, its number still taken
        with Leases(tmp_path).take(KEY, "next"):
            pass


def test_a_process_number_that_was_used_again_is_no_life(tmp_path):
    """Prevents a dead worker's lease from being held by whoever got its number."""
    abandoned(tmp_path)
    assert isinstance(Leases(tmp_path).take(KEY, "next"), Holder)
    as_if(tmp_path, started="1")
    with Leases(tmp_path).take(KEY, "next"):
        pass


def test_a_process_whose_name_is_no_text(tmp_path):
    """Prevents a run from failing because its dead worker's number went to a program `caf\\xe9`."""
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    odd.symlink_to(shutil.which("sleep"))
    with subprocess.Popen(["sleep", "60"], executable=odd) as named:
        try:
            abandoned(tmp_path, pid=named.pid, started="1")
            with Leases(tmp_path).take(KEY, "next"):
                pass
        finally:
            named.kill()


def test_a_process_that_hides_its_start_is_alive(tmp_path, monkeypatch):
    """Prevents another user's worker from being robbed where /proc is mounted with `hidepid`."""
    abandoned(tmp_path)
    read = Path.read_text

    def hidden(path, *args, **kwargs):
        if path.name == "stat":
            raise PermissionError
        return read(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", hidden)
    assert isinstance(Leases(tmp_path).take(KEY, "next"), Holder)


@pytest.mark.parametrize(("seconds", "lapsed"), [(60, False), (180, True)])
def test_another_machine_s_lease_lapses_after_two_minutes(tmp_path, monkeypatch, seconds, lapsed):
    """Fault 11: prevents waiting for ever for a machine that is off, and robbing one that is slow.

    Our own clock has nothing to say in it.
    """
    abandoned(tmp_path, **OTHER_MACHINE)
    aged(tmp_path, seconds)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    taken = Leases(tmp_path).take(KEY, "next")
    assert isinstance(taken, Lease) == lapsed
    if isinstance(taken, Lease):
        with taken:
            pass
    else:
        assert str(taken) == "process 7 on far"


@pytest.mark.parametrize("content", ["", "[" * 99_999], ids=["empty", "deep"])
def test_a_lease_that_cannot_be_read_lapses_by_its_age(tmp_path, content):
    """Prevents a file that a power cut left empty from stopping a sweep, or from being no lease."""
    abandoned(tmp_path)
    file_of(tmp_path).write_text(content)
    assert str(Leases(tmp_path).take(KEY, "next")) == "an unknown process"
    aged(tmp_path, 180)
    with Leases(tmp_path).take(KEY, "next"):
        assert json.loads(file_of(tmp_path).read_text())["token"] == "next"


@pytest.mark.parametrize("pid", ["abc", None, [1], 1.5, 2**31, 10**30, True, -3])
def test_a_lease_of_no_process_lapses_by_its_age(tmp_path, pid):
    """Prevents a damaged number from failing its run in every sweep, by an error without a file."""
    abandoned(tmp_path)
    file = file_of(tmp_path)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pid": pid}))
    assert str(Leases(tmp_path).take(KEY, "next")) == "an unknown process"
    aged(tmp_path, 180)
    assert isinstance(Leases(tmp_path).take(KEY, "next"), Lease)


def test_a_fifo_in_the_place_of_a_lease(tmp_path):
    """Prevents a sweep that waits for ever for somebody to write into a FIFO."""
    leases = Leases(tmp_path)
    os.mkfifo(file_of(tmp_path))
    assert leases.take(KEY, "us") == Holder("", "", 0, "", "")
    aged(tmp_path, 130)
    assert isinstance(leases.take(KEY, "us"), Lease)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch, number):
    """Prevents two workers at one run, a traceback per run, or a hang, where flock is missing.

    Lustre mounted without it, some FUSE and network file systems.
    """

    def missing(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", missing)
    with pytest.raises(UserError, match=f"^{tmp_path}/claims: that file system has no file locks"):
        Leases(tmp_path)
    assert list((tmp_path / "claims").iterdir()) == []


def test_a_lease_is_touched_while_its_run_lasts(tmp_path):
    """Prevents a run of more than two minutes from losing its lease."""
    with Leases(tmp_path, lapse=0.1).take(KEY, "a"):
        aged(tmp_path, 3600)
        before = file_of(tmp_path).stat().st_mtime
        wait_until(lambda: file_of(tmp_path).stat().st_mtime > before + 3000, "it isn't touched")


@pytest.mark.parametrize("lapse", [1.0, 120.0])
def test_a_lease_may_miss_a_touch(tmp_path, lapse):
    """Prevents a lease that lapses between two touches, or after the first that comes late."""
    with Leases(tmp_path, lapse).take(KEY, "a") as lease:
        assert 0 < lease._beat < lapse / 3


def test_a_lost_lease_is_the_next_one_s(tmp_path):
    """Prevents a machine that slept from keeping the new owner's lease alive, or ending it."""
    leases = Leases(tmp_path, lapse=0.2)
    with leases.take(KEY, "slept"):
        as_if(tmp_path, started="1")
        taken = Leases(tmp_path).take(KEY, "next")
        aged(tmp_path, 3600)
        before = file_of(tmp_path).stat().st_mtime
        time.sleep(0.3)
        assert file_of(tmp_path).stat().st_mtime == before
    assert json.loads(file_of(tmp_path).read_text())["token"] == "next"
    with taken:
        pass
    assert not file_of(tmp_path).exists()


def test_of_many_who_see_it_lapse_one_gets_it(tmp_path):
    """Fault 11: prevents two takers of one lapsed lease, each of whom saw it lapse."""
    abandoned(tmp_path, **OTHER_MACHINE)
    aged(tmp_path, 180)
    together = threading.Barrier(8)

    def take(number):
        together.wait()
        return Leases(tmp_path).take(KEY, f"taker {number}")

    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(take, range(8)))
    (winner,) = (each for each in taken if isinstance(each, Lease))
    with winner:
        pass
    assert not file_of(tmp_path).exists()


def test_a_machine_has_a_name_where_linux_has_none(monkeypatch):
    """Prevents all machines without /proc from being one, whose living processes look dead."""
    from eval_harness.sweep import leases

    monkeypatch.setattr(leases.uuid, "getnode", lambda: 0xABC)
    monkeypatch.setattr(leases.platform, "node", lambda: "mac")
    here = leases._machine.__wrapped__()
    monkeypatch.setattr(leases.Path, "readlink", lambda _: (_ for _ in ()).throw(OSError()))
    assert leases._machine.__wrapped__() == "mac abc"
    assert here.startswith("mac ")
    assert here != "mac abc"
