"""Fixtures for all tests: no network, no downloads, nothing left behind for other tests."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent

# Before anything else is imported: the Hub's client reads these once.
sys.path.insert(0, str(HERE / "offline"))
sys.path.insert(0, str(HERE / "makers"))
import sitecustomize  # noqa: E402

if Path(sitecustomize.__file__).parent != HERE / "offline":  # the machine has another
    del sys.modules["sitecustomize"]
    import sitecustomize

# For the processes that tests start, too.
os.environ["PYTHONPATH"] = os.pathsep.join(
    map(
        str,
        filter(None, [HERE / "offline", HERE / "makers", ROOT, os.environ.get("PYTHONPATH")]),
    )
)
for token in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
    os.environ.pop(token, None)
# Bits depend on the number of threads; one is also the fastest for models this small.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# A script's `make test &` ignores Ctrl-C, and so would every process that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest  # noqa: E402


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Every test has its own empty Hub cache, never the user's."""
    from huggingface_hub import constants

    cache = tmp_path_factory.mktemp("hub")
    monkeypatch.setenv("HF_HOME", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))


@pytest.fixture(autouse=True)
def own_log_levels():
    """Every test starts with the default log levels: a Trainer's `log_level` sets transformers'."""
    names = ("transformers", "distil_trainer", "eval_harness", "angels_share")
    levels = {name: logging.getLogger(name).level for name in names}
    # Unset until transformers is imported, which may happen inside the test.
    levels["transformers"] = levels["transformers"] or logging.WARNING
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def real_data():
    """The folder of real data and weights, if the machine has one."""
    folder = os.environ.get("DISTIL_DATA")
    if not folder:
        pytest.skip("DISTIL_DATA names no folder of real data")
    return Path(folder)


@pytest.fixture
def run_script():
    """Runs a command in a fresh process, in the repository's root."""

    def run(*words, timeout=60, **environment):
        return subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
