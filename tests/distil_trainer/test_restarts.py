"""A group of processes that loses one is started again by torchrun, and ends as if it hadn't."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny
from places import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc"),
]


@pytest.fixture
def world(tmp_path):
    """A teacher's folder and a corpus."""
    tiny.folder(tmp_path / "teacher", tiny.bert(layers=2), tiny.wordpiece())
    rng = np.random.default_rng(0)
    words = " ".join(tiny.LINES).split()
    lines = [" ".join(rng.choice(words, rng.integers(12, 30))) for _ in range(200)]
    (tmp_path / "corpus.txt").write_text("\n".join(lines))
    return tmp_path


def started(world, out, *words):
    """Start the command in two processes, of which torchrun starts a dead one's group again."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2",
        "--max_restarts", "1", "--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0",
        str(ROOT / "run_pretrain_distill.py"), "--teacher", str(world / "teacher"),
        "--corpus", str(world / "corpus.txt"), "--corpus_dir", str(world / "prepared"),
        "--output_dir", str(world / out), "--max_steps", "60", "--save_steps", "5",
        "--per_device_train_batch_size", "4", "--report_to", "none", "--use_cpu",
        "--disable_tqdm", "--validation_fraction", "0", *words,
    ]  # fmt: skip
    # Or the group that is started again looks for the dead one's processes in torchrun's store.
    settings = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    return subprocess.Popen(
        command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def ended(process):
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said[-4000:]


def pid_of(launcher, rank):
    """Return the process that torchrun started as a rank."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and f"\nPPid:\t{launcher}\n" in (folder / "status").read_text():
            settings = (folder / "environ").read_bytes().split(b"\0")
            if f"RANK={rank}".encode() in settings:
                return int(folder.name)
    raise AssertionError(f"{launcher} has no rank {rank}")


@pytest.mark.parametrize("words", [(), ("--shard_student",)], ids=["replicated", "sharded"])
def test_a_rank_that_is_killed(world, words):
    """Prevents a run over nodes that ends with the first of them, or goes on to other bits."""
    ended(started(world, "undisturbed", *words))
    process = started(world, "killed", *words)
    deadline = time.monotonic() + 600
    while not (world / "killed" / "checkpoint-5").exists():
        assert process.poll() is None, process.stdout.read()[-4000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(pid_of(process.pid, 1), signal.SIGKILL)
    ended(process)
    (time_of,) = json.loads((world / "killed" / "distil.json").read_text())["times"]
    assert time_of.startswith("training from step "), "nobody was killed"
    students = [
        (world / out / "model.safetensors").read_bytes() for out in ("undisturbed", "killed")
    ]
    assert students[0] == students[1]
