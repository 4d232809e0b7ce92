"""The variants of the distillation step, and the environments of those that others wrote.

    python -m benchmarks.peers

installs each peer from the package index into `.peers/NAME`, with the versions of torch and
transformers that `constraints.txt` names. One that can't be installed is skipped by the benchmark,
with pip's reason.
"""

import argparse
import subprocess
import sys
import venv
from pathlib import Path
from typing import Literal, NamedTuple

ROOT = Path(__file__).parent.parent
ENVIRONMENTS = ROOT / ".peers"
_REASON = "not-installed.txt"


class Variant(NamedTuple):
    """One way to do the step; its code is the module of `benchmarks.variants` with its name."""

    name: str
    title: str
    terms: tuple[str, ...]
    batching: Literal["random", "grouped", "tokens"] = "random"
    attention: Literal["eager", "sdpa"] = "sdpa"
    learns_padding: bool = False
    """Whether soft targets of padding count, too."""
    restricts: bool = True
    """Whether soft targets can be restricted to the masked tokens."""
    package: str | None = None
    """What pip installs; None for what runs in this environment."""

    needs: tuple[str, ...] = ()
    """Packages that it imports, but doesn't ask for."""

    @property
    def distribution(self) -> str | None:
        """The package's name."""
        return self.package and self.package.partition("==")[0]

    @property
    def python(self) -> Path:
        """The interpreter that runs it."""
        if self.package is None:
            return Path(sys.executable)
        return ENVIRONMENTS / self.name / "bin" / "python"


_ALL = ("ce", "mlm", "cos")
VARIANTS = (
    Variant("ours", "ours", _ALL, batching="tokens"),
    Variant("compiled", "ours, bodies compiled", _ALL, batching="tokens"),
    Variant("textbook", "the original's algorithm", _ALL, batching="grouped", attention="eager"),
    Variant("plain_trainer", "a plain Trainer", _ALL[:2], learns_padding=True, restricts=False),
    Variant("textbrewer", "TextBrewer", _ALL, package="textbrewer==0.2.1.post1"),
    Variant(
        "torchdistill",
        "torchdistill",
        _ALL[:2],
        learns_padding=True,
        restricts=False,
        package="torchdistill==1.1.5",
    ),
    Variant(
        "modelopt",
        "NVIDIA ModelOpt",
        _ALL[:2],
        package="nvidia-modelopt==0.47.0",
        needs=("requests",),
    ),
)


def why_absent(variant: Variant) -> str | None:
    """Return why a variant can't be run, or None."""
    if variant.package is None:
        return None
    reason = ENVIRONMENTS / variant.name / _REASON
    if reason.exists():
        return reason.read_text(encoding="utf-8").strip()
    return None if variant.python.exists() else "not installed: `make bench-peers` installs it"


def install(variant: Variant, index: str) -> str | None:
    """Install a peer in an environment of its own; return pip's reason if that failed.

    Args:
        variant: a peer.
        index: the package index for torch; empty for the configured one.
    """
    folder = ENVIRONMENTS / variant.name
    if variant.python.exists() and not (folder / _REASON).exists():
        return None
    assert variant.package is not None
    venv.create(folder, with_pip=True)
    pip = [str(variant.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pip += ["--constraint", str(ROOT / "constraints.txt")]
    # Until it has ended well: an interrupted installation must not pass for one.
    (folder / _REASON).write_text("its installation was interrupted", encoding="utf-8")
    torch = ["torch", *(["--index-url", index] if index else [])]
    for wanted in (torch, ["transformers", "accelerate", variant.package, *variant.needs]):
        ended = subprocess.run([*pip, *wanted], stderr=subprocess.PIPE, text=True, check=False)
        if ended.returncode:
            lines = [line for line in ended.stderr.splitlines() if line.startswith("ERROR")]
            reason = f"pip: {(lines or ['failed'])[-1].removeprefix('ERROR: ')}"
            (folder / _REASON).write_text(reason, encoding="utf-8")
            return reason
    (folder / _REASON).unlink()
    return None


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description="Install the peers."
    )
    parser.add_argument("--torch_index", default="", help="package index for torch")
    options = parser.parse_args()
    for variant in VARIANTS:
        if variant.package is not None:
            reason = install(variant, options.torch_index)
            print(f"{variant.package}: {reason or 'installed'}")


if __name__ == "__main__":
    main()
