"""Sweeps on a real Ray cluster: two nodes on this machine, of which one is lost on the way."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
import worlds
from places import ROOT
from sweeps import evaluated, reasons, seeds
from work_for_sweeps import WORK, job, notes, wait_until

from angels_share.errors import RunFailed, UserError
from eval_harness.child_process import environment
from eval_harness.results.store import find
from eval_harness.sweep import ray_cluster, ray_tasks, scheduler
from eval_harness.sweep.inputs import lacking, versions
from eval_harness.sweep.queue import Job
from eval_harness.sweep.ray_node import unpack
from eval_harness.sweep.ray_tasks import RayTasks
from eval_harness.sweep.worker import stamp

pytestmark = [
    # Not by importing it: what listens where is settled before that.
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is not installed"),
    pytest.mark.slow,
    # Ray's own sockets and files, which its processes close.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def whole_cluster():
    """A cluster of a head without cores, to which nodes are added."""
    with environment(ray_cluster.OF_OUR_OWN):
        from ray.cluster_utils import Cluster

        made = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        yield made
        made.shutdown()


@pytest.fixture
def cluster(whole_cluster):
    """The cluster with two nodes of a core each, also if a test has lost one."""
    import ray

    for _ in range(2 - len(whole_cluster.worker_nodes)):
        whole_cluster.add_node(num_cpus=1)
    whole_cluster.wait_for_nodes()
    yield whole_cluster
    ray.shutdown()


class Unchecked(RayTasks):
    """Looks for nothing on the nodes: the models of made-up runs are nowhere."""

    def prepare(self, jobs):
        pass


def sweep(root, jobs, cluster):
    return scheduler.sweep(root, jobs, Unchecked(root, WORK, address=cluster.address, threads=1))


def tasks_at_work():
    """The process ids of Ray's workers that are executing a run, by the run."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if named := re.match(r"ray::(.* on \S+, seed \d+)", words):
            found[named[1]] = int(path.parent.name)
    return found


def node_of(pid):
    """The raylet that started a worker."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"PPid:\s+(\d+)", status)[1])


def test_runs_are_tasks_in_the_order_of_their_needs(tmp_path, cluster):
    """Prevents students before their teacher, lost reasons, and runs without their threads."""
    log = str(tmp_path / "log")
    teacher = job("rte", 9, "bert", log=log)
    students = [job("rte", seed, needs=teacher.key, log=log) for seed in (1, 2)]
    bad = job("cola", 3, diverges="at 3e-4", log=log)
    broken = job("cola", 4, breaks="a wheel", log=log)
    jobs = [*students, bad, job("cola", 5, needs=bad.key), broken, teacher]
    outcome = sweep(tmp_path, jobs, cluster)
    assert seeds(outcome.done) == [1, 2, 9]
    found = reasons(outcome)
    assert found.pop(4).startswith("ZeroDivisionError: a wheel (at work_for_sweeps.py:")
    assert found == {
        3: "step 7: the loss is not finite at 3e-4",
        5: "not started: it needs distilbert on CoLA, seed 3, which failed",
    }
    order = [note["seed"] for note in notes(log)]
    assert order.index(9) < min(order.index(1), order.index(2))
    assert {note["OMP_NUM_THREADS"] for note in notes(log)} == {"1"}
    assert list(tmp_path.glob("claims/*.json")) == []
    assert list(tmp_path.glob(".sweep-*")) == []


def test_a_run_whose_worker_always_dies_fails_alone(tmp_path, cluster):
    """Prevents a crash in a run from being repeated for ever, or from ending the others."""
    log = str(tmp_path / "log")
    deadly = job("rte", 1, killed_by=int(signal.SIGKILL), log=log)
    outcome = sweep(tmp_path, [deadly, job("rte", 2, log=log)], cluster)
    assert seeds(outcome.done) == [2]
    assert reasons(outcome)[1].startswith("its worker or node died, also when Ray had repeated it")
    assert [note["seed"] for note in notes(log)].count(1) == 1 + ray_cluster.RETRIES


def test_what_a_node_lacks_is_named_before_anything_runs(tmp_path, cluster):
    """Prevents runs that fail one by one on a node without their model or data."""
    world = worlds.make(tmp_path / "world")
    one = Job(worlds.run_on(world / "glue", world / "distilbert"))

    def refused(**settings):
        tasks = RayTasks(tmp_path, WORK, address=cluster.address, **{"threads": 1, **settings})
        with pytest.raises(UserError) as caught:
            scheduler.sweep(tmp_path, [one], tasks)
        return str(caught.value)

    assert re.search(r"no node of the cluster at \S+ has 64 cores for a run", refused(threads=64))
    gone = (world / "distilbert").rename(world / "elsewhere")
    said = refused()
    assert re.search(r"node \S+: \S+/world/distilbert: no such folder \(and \d more", said)
    assert "every node needs the code, the libraries, the models and the data" in said
    gone.rename(world / "distilbert")
    (world / "glue" / "RTE" / "dev.tsv").write_text("index\tsentence1\tsentence2\tlabel\n")
    assert "RTE" in refused()
    assert not find(tmp_path).results


def test_an_address_without_a_cluster_is_refused_at_once(tmp_path):
    """Prevents minutes of Ray's own messages where an address is mistyped."""
    tasks = RayTasks(tmp_path, WORK, address="127.0.0.1:1", threads=1)
    began = time.monotonic()
    with pytest.raises(UserError, match=r"127\.0\.0\.1:1: no Ray cluster answers there: "):
        tasks.described(1)
    assert time.monotonic() - began < 15


def test_what_is_not_the_same_is_named(tmp_path):
    """Prevents results that mix two versions of the code or of torch."""
    wanted = versions()
    assert lacking(wanted, [], tmp_path) is None
    assert lacking({**wanted, "torch": "1.0"}, [], tmp_path).endswith("instead of 1.0")
    assert lacking({**wanted, "angels-share": "0 (x)"}, [], tmp_path).startswith("angels-share is")


def test_a_killed_worker_and_a_killed_node_change_no_bit(tmp_path, cluster, monkeypatch):
    """Prevents a run that is lost with its worker or its node, or repeated to other bits."""
    world = worlds.make(tmp_path / "world")
    expected = evaluated(world, tmp_path / "local", epochs=10, workers=2)
    killed, begun, real = [], {}, RayTasks.events

    def events(self, seconds):
        for name, pid in tasks_at_work().items():
            # In mid-run: when it has been at work for a while.
            if time.monotonic() - begun.setdefault((name, pid), time.monotonic()) < 2:
                continue
            if not killed:
                killed.append(("worker", name))
                os.kill(pid, signal.SIGKILL)
            elif len(killed) == 1 and name != killed[0][1]:
                killed.append(("node", name))
                raylet = node_of(pid)
                (node,) = [
                    each
                    for each in cluster.worker_nodes
                    if each.all_processes["raylet"][0].process.pid == raylet
                ]
                cluster.remove_node(node, allow_graceful=False)
        return real(self, seconds)

    monkeypatch.setattr(RayTasks, "events", events)
    root = tmp_path / "ray"
    given = {"executor": "ray", "ray_address": cluster.address}
    assert evaluated(world, root, epochs=10, **given) == expected
    assert [what for what, _ in killed] == ["worker", "node"]
    assert list(root.glob("claims/*.json")) == []
    print(f"killed: {killed}")


def saved_here(monkeypatch):
    """The keys of the results that this process publishes from now on."""
    keys, real = [], ray_tasks.save

    def save(root, assignment, result, predictions):
        keys.append(result.key)
        real(root, assignment, result, predictions)

    monkeypatch.setattr(ray_tasks, "save", save)
    return keys


def test_nodes_that_see_the_results_publish_there(tmp_path, cluster, monkeypatch):
    """Prevents results from being sent home where the node can write them into the folder."""
    keys = saved_here(monkeypatch)
    runs = [job("rte", seed) for seed in (1, 2, 3)]
    assert seeds(sweep(tmp_path, runs, cluster).done) == [1, 2, 3]
    assert sorted(each.key for each in find(tmp_path).results) == sorted(
        one.run.key for one in runs
    )
    again = [job("rte", seed, again=True) for seed in (1, 2)]
    stamps = [stamp(tmp_path, one.key) for one in again]
    assert seeds(sweep(tmp_path, again, cluster).done) == [1, 2]
    assert all(stamp(tmp_path, one.key) != old for one, old in zip(again, stamps, strict=True))
    assert keys == []


def test_a_result_may_be_seen_late(tmp_path, cluster, monkeypatch):
    """Prevents a run that fails since the network's file system shows its result a moment later."""
    said = [OSError("stale"), "", "predictions are missing", None]

    def unfinished(*_):
        if isinstance(now := said.pop(0), OSError):
            raise now
        return now

    monkeypatch.setattr(ray_tasks, "unfinished", unfinished)
    assert seeds(sweep(tmp_path, [job("rte", 1)], cluster).done) == [1]
    assert said == []


def test_a_result_that_is_not_seen_here_fails_its_run(tmp_path, cluster, monkeypatch):
    """Prevents a run that counts as done although its result is in another folder."""
    monkeypatch.setattr(ray_tasks, "_SEEN_SECONDS", 1.0)
    monkeypatch.setattr(ray_tasks, "unfinished", lambda *_: "its predictions are missing")
    outcome = sweep(tmp_path, [job("rte", 1)], cluster)
    said = "it is not there (its predictions are missing): is it the same folder on both?"
    assert reasons(outcome)[1].endswith(said)


def test_nodes_need_not_see_the_results(tmp_path, cluster, monkeypatch):
    """Prevents a results folder that must be shared, and models and teachers left on the nodes."""
    world = worlds.make(tmp_path / "world")
    expected = evaluated(world, tmp_path / "local")
    sites, real = [], RayTasks.begin

    def begin(self, slot, assignment):
        self._site.marker.unlink(missing_ok=True)  # what shows a node that it sees the folder
        sites.append(self._site)
        real(self, slot, assignment)

    monkeypatch.setattr(RayTasks, "begin", begin)
    root = tmp_path / "ray"
    given = {"executor": "ray", "ray_address": cluster.address}
    keys = saved_here(monkeypatch)
    assert evaluated(world, root, **given) == expected
    assert sorted(keys) == sorted(one.key for one in find(root).results)
    assert (tmp_path / "local" / "teacher-outputs").exists()
    assert not (root / "teacher-outputs").exists(), "a node wrote into the folder after all"
    assert not sites[0].scratch.exists(), "a node keeps what was sent to it"


def test_what_comes_home_stays_in_its_folder(tmp_path):
    """Prevents a node from writing anywhere on the machine with the command."""
    for name in ("../x", "/elsewhere/x"):
        with pytest.raises(RunFailed, match="points out of the folder"):
            unpack({name: b""}, tmp_path)


COMMAND = """
import sys
from pathlib import Path
from test_ray_helper import Unchecked
from work_for_sweeps import WORK, job
from angels_share.cli import Command, run_command
from eval_harness.sweep import scheduler

def run(_options):
    root = Path(sys.argv[1])
    jobs = [job("rte", seed, wait_for=str(root / "gate"), log=str(root / "log")) for seed in (1, 2)]
    scheduler.sweep(root, jobs, Unchecked(root, WORK, threads=1))
    return 0

sys.exit(run_command(Command("go", "", (), run, ()), []))
"""
HELPER = """
from eval_harness.sweep.ray_tasks import RayTasks
class Unchecked(RayTasks):
    def prepare(self, jobs):
        pass
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_leaves_nothing_behind(tmp_path, number, status):
    """Prevents Ray's processes, leases and a GPU's memory from outliving the command."""
    (tmp_path / "test_ray_helper.py").write_text(HELPER)
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, tmp_path], cwd=ROOT, text=True, start_new_session=True,
        stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path},
    ) as command:  # fmt: skip
        wait_until(lambda: notes(tmp_path / "log"), "no run began")
        started = below(command.pid)
        assert any("raylet" in words for words in started.values())
        listening = addresses_of(started)
        # A terminal sends Ctrl-C to all processes of the group.
        send = os.killpg if number == signal.SIGINT else os.kill
        send(command.pid, number)
        said = command.communicate(timeout=60)[1]
    assert command.returncode == status, said
    assert "0 of 2 runs have results; the same command goes on from there" in said
    assert listening, "no socket was found"
    assert set(listening) == {"127.0.0.1"}
    wait_until(lambda: not any(map(is_alive, started)), "processes are left", seconds=20)
    assert list(tmp_path.glob("claims/*.json")) == []


def below(pid):
    """The command lines of all processes that a process started, by their ids."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, new = {}, {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new}
        for child in new:
            with suppress(OSError):
                found[child] = Path(f"/proc/{child}/cmdline").read_text()
    return found


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def addresses_of(pids):
    """The addresses at which processes listen."""
    links = []
    for pid in pids:
        for path in Path(f"/proc/{pid}/fd").glob("*"):
            with suppress(OSError):
                links.append(str(path.readlink()))
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in links:
                raw = bytes.fromhex(fields[1].partition(":")[0])[-4:]
                found.append(".".join(str(part) for part in reversed(raw)))
    return found
