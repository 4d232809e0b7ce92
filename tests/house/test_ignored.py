"""What git keeps of results/: all that the project publishes, and nothing that a run leaves."""

import shutil
import subprocess

import pytest
from places import ROOT

LOCAL = (
    "runs/tiny-0a1b2c3d/rte/e9fd49fc/seed-1.json",
    "runs/tiny-0a1b2c3d/rte/e9fd49fc/seed-1.d80a2c00.parquet",
    "probes/tiny-0a1b2c3d/text-01234567.json",
    "probes/table.json",
    "speed/2026-11-21-01234567.json",
    "intervals/0123456789abcdef.json",
    "models/tiny-0a1b2c3d/rte/e9fd49fc/seed-1/model.safetensors",
    "claims/.lock",
    "submissions/tiny-0a1b2c3d/e9fd49fc/seed-1/RTE.tsv",
    "teacher-outputs/0123456789abcdef.npy",
    "report.html",
    "figures/retained.svg",
    "table0.md", "table1.csv", "table2.json", "table3.tex", "table0-differences.md", "family.md",
    "logs/run.txt",
)  # fmt: skip
PUBLISHED = ("README.md", "reference/paper.json", "reference/another.json")


@pytest.fixture
def ignores():
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("this is no checkout of git")

    def ignored(*names):
        paths = [f"results/{name}" for name in names]
        ended = subprocess.run(
            ["git", "check-ignore", "--no-index", *paths],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ended.returncode in (0, 1), ended.stderr
        return {path.removeprefix("results/") for path in ended.stdout.splitlines()}

    return ignored


def test_what_a_run_leaves_is_ignored(ignores):
    """Prevents a commit of predictions, which hold the data's labels, and of local tables."""
    assert ignores(*LOCAL) == set(LOCAL)


def test_what_is_published_is_not(ignores):
    """Prevents the paper's numbers and the log from being left out of a commit."""
    assert ignores(*PUBLISHED) == set()
