"""Slurm's commands for a test, on one machine: what `sbatch`, `srun`, `sacct`, `scancel` and
`scontrol` say and do by their manuals, as far as submitit asks for it.

Each task of an array has a keeper, a process that starts the batch script, watches its time,
passes on signals and starts it again when it is requeued. The other commands leave a request in the
task's folder. Seconds of Slurm's own take `1 / SPEED` of a second here.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

SPEED = float(os.environ.get("PRETEND_SLURM_SPEED", "20"))
COMMANDS = ("sbatch", "srun", "sacct", "squeue", "scancel", "scontrol")
KILL_WAIT = GRACE = 30.0
PARTITIONS = ("cpu", "gpu")
WAITING, RUNNING = "PENDING", "RUNNING"


def make(folder, *, nodes=2):
    """Write the commands into a folder for the PATH, for a cluster of some nodes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nodes").write_text(str(nodes))
    for name in COMMANDS:
        words = shlex.join([sys.executable, "-I", "-S", __file__, name])
        (folder / name).write_text(f'#!/bin/sh\nPRETEND_SLURM={folder} exec {words} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


def tasks(folder):
    """The folders of all tasks, by their ids."""
    return {path.name: path for path in sorted((folder / "tasks").glob("*"))}


def state_of(task):
    return (task / "state").read_text()


def ask(task, request):
    """Leave a request for a task's keeper: `preempt`, `cancel`, `requeue`, or `signal-USR2`."""
    (task / request).touch()


def runs_of(task):
    """How often the batch script was started."""
    return int((task / "starts").read_text()) if (task / "starts").exists() else 0


# --- the commands


def home():
    return Path(os.environ["PRETEND_SLURM"])


def sbatch(script):
    text = Path(script).read_text()
    flags = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", text, re.MULTILINE))
    flags = {name: shlex.split(value)[0] for name, value in flags.items()}
    if flags.get("partition", "cpu") not in PARTITIONS:
        sys.exit("sbatch: error: invalid partition specified: " + flags["partition"])
    with locked():
        number = 1 + max((int(n.split("_")[0]) for n in tasks(home())), default=100)
        array = re.fullmatch(r"0-(\d+)%(\d+)", flags.get("array", ""))
        names = [f"{number}_{n}" for n in range(int(array[1]) + 1)] if array else [str(number)]
        for name in names:
            task = home() / "tasks" / name
            task.mkdir(parents=True)
            (task / "flags").write_text(json.dumps({**flags, "script": script}))
            write(task, WAITING)
    for name in names:
        subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, "keeper", name],
            start_new_session=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=(home() / f"{name}.keeper").open("w"),
        )  # fmt: skip
    print(f"Submitted batch job {number}")


def srun(*words):
    """Run a step: in a process group of its own, with its output in the files of the job's id."""
    words, files = list(words), {}
    while words[0].startswith("--"):
        flag = words.pop(0)
        if flag in ("--output", "--error"):
            files[flag] = words.pop(0)
    names = {"%A": "SLURM_ARRAY_JOB_ID", "%a": "SLURM_ARRAY_TASK_ID", "%j": "SLURM_JOB_ID"}
    for flag, path in files.items():
        for sign, name in names.items():
            path = path.replace(sign, os.environ.get(name, ""))
        files[flag] = path.replace("%t", "0")
    with Path(files["--output"]).open("a") as out, Path(files["--error"]).open("a") as err:
        step = subprocess.Popen(words, stdout=out, stderr=err, process_group=0)
    (Path(os.environ["PRETEND_TASK"]) / "step").write_text(str(step.pid))
    sys.exit(step.wait() % 256)


def sacct(*words):
    asked = {words[n + 1] for n, word in enumerate(words) if word == "-j"}
    print("JobID|State|NodeList")
    for name, task in tasks(home()).items():
        if name.split("_")[0] not in asked:
            continue
        state = state_of(task)
        print(f"{name}|{state}|{'None assigned' if state == WAITING else 'node0'}")
        if state != WAITING:
            print(f"{name}.batch|{state}|node0")


squeue = sacct


def scancel(*words):
    sent = [words[n + 1] for n, word in enumerate(words) if word == "--signal"]
    for name, task in tasks(home()).items():
        if {name, name.split("_")[0]} & set(words):
            ask(task, f"signal-{sent[0].removeprefix('SIG')}" if sent else "cancel")


def scontrol(what, name):
    assert what == "requeue", what
    ask(tasks(home())[name], "requeue")


# --- the keeper of a task


def keeper(name):
    task = home() / "tasks" / name
    while True:
        with waiting_for_a_node(task) as may_start:
            if not may_start:
                return write(task, "CANCELLED by 0")
        requeued = kept(task, started(task))
        if not requeued:
            return None
        write(task, WAITING)
        (task / "step").unlink(missing_ok=True)
        time.sleep(1 / SPEED)


@contextmanager
def waiting_for_a_node(task):
    """Mark the task as running as soon as a node is free; yield False if it was cancelled."""
    nodes = int((home() / "nodes").read_text())
    while True:
        if (task / "cancel").exists():
            yield False
            return
        with locked():
            if sum(state_of(each) == RUNNING for each in tasks(home()).values()) < nodes:
                write(task, RUNNING)
                yield True
                return
        time.sleep(0.05)


def started(task):
    flags = json.loads((task / "flags").read_text())
    array, _, number = task.name.partition("_")
    (task / "starts").write_text(str(runs_of(task) + 1))
    environment = {
        **{name: text for name, text in os.environ.items() if not name.startswith("SLURM_")},
        "SLURM_JOB_ID": task.name if not number else str(int(array) * 1000 + int(number)),
        "SLURM_JOB_NODELIST": "node0", "SLURM_NODEID": "0", "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0", "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1",
        "PRETEND_TASK": str(task),
    }  # fmt: skip
    if number:
        environment |= {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": number}
    return subprocess.Popen(["bash", flags["script"]], env=environment, process_group=0)


def kept(task, batch):
    """Keep a started script until it has ended; return whether it is requeued."""
    flags = json.loads((task / "flags").read_text())
    name, delay = flags["signal"].split("@")
    end = time.monotonic() + float(flags["time"]) * 60 / SPEED
    notice = end - float(delay) / SPEED
    while batch.poll() is None:
        time.sleep(0.02)
        now = time.monotonic()
        for request in task.glob("signal-*"):
            request.unlink()
            send(task, request.name.partition("-")[2])
        if notice is not None and now >= notice:
            notice = None
            send(task, name)
        if taken(task, "preempt"):
            send(task, "CONT", "TERM")
            end_all(task, batch, GRACE)
            return True
        if taken(task, "requeue"):
            end_all(task, batch, KILL_WAIT)
            return True
        if taken(task, "cancel"):
            end_all(task, batch, KILL_WAIT)
            return write(task, "CANCELLED by 0")
        if now >= end:
            end_all(task, batch, KILL_WAIT)
            return write(task, "TIMEOUT")
    if taken(task, "requeue"):  # asked for by the job itself, which then ended
        return True
    return write(task, "FAILED" if batch.returncode else "COMPLETED")


def end_all(task, batch, patience):
    """Ask all processes of a job to end, and kill them when their time is up."""
    send(task, "TERM")
    end = time.monotonic() + patience / SPEED
    while batch.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    send(task, "KILL")
    with suppress(ProcessLookupError):
        os.killpg(batch.pid, signal.SIGKILL)
    batch.wait()


def send(task, *names):
    """Send signals to all processes of the job's step."""
    if (task / "step").exists():
        for name in names:
            with suppress(ProcessLookupError):
                os.killpg(int((task / "step").read_text()), getattr(signal, f"SIG{name}"))


def taken(task, request):
    if not (task / request).exists():
        return False
    (task / request).unlink()
    return True


def write(task, state):
    new = task / ".state"
    new.write_text(state)
    new.rename(task / "state")


@contextmanager
def locked():
    import fcntl

    with (home() / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
