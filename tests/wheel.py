"""Build the wheel, install it in a bare environment, and use it outside of the checkout.

`make wheel`; it asks the package index for hatchling and the dependencies, so it is no test of the
suite, which reaches no network. It shows what an editable install hides: a file that the wheel
lacks, a dependency that only the developers have, a path that holds only in the checkout.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("angels_share", "distil_trainer", "eval_harness")
COMMANDS = (
    "run_pretrain_distill",
    "run_glue",
    "run_squad_distill",
    "distil_trainer",
    "eval_harness",
)


def run(*words, cwd):
    """Run a command without the checkout in sight; return what it printed."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")
    clean = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=clean, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))}: {done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def require(holds, what):
    """End with a line if something does not hold."""
    if not holds:
        raise SystemExit(f"wheel: {what}")
    print(f"wheel: ok: {what}", flush=True)


def files_of_the_packages():
    """Return the names of all files that must be in the wheel."""
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*"))
    return {
        path.relative_to(ROOT).as_posix()
        for path in files
        if path.is_file() and "__pycache__" not in path.parts
    } | {"eval_harness/tables/paper.json"}


def built(folder):
    """Build the wheel of this checkout and return its path."""
    build = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir")
    run(*build, folder / "dist", ROOT, cwd=folder)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def install(python, *what, cwd):
    """Install something with the tested versions of its dependencies."""
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "--constraint", ROOT / "constraints.txt", *what, cwd=cwd)


def install_as_readme_says(folder, torch_index):
    """Type README's install block in a clone, as a newcomer does; return what a command then says.

    An index for torch is added to the block's own: it is the machine's affair, not the newcomer's.
    """
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = text.partition("\n## Install\n")[2].split("```")[1]
    run("git", "clone", "--quiet", ROOT, folder / "clone", cwd=folder)
    index = f"export PIP_EXTRA_INDEX_URL={torch_index}\n" if torch_index else ""
    return run("bash", "-ec", f"{index}{block}\nrun_glue --version", cwd=folder / "clone")


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--torch-index", default="", help="index to install torch from")
    parser.add_argument("--wheel", type=Path, help="a wheel that was built before")
    parser.add_argument("--audit", type=Path, help="also write what was installed to this file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wheel-") as name:
        folder = Path(name)
        wheel = given.wheel.resolve() if given.wheel else built(folder)
        with zipfile.ZipFile(wheel) as file:
            inside = set(file.namelist())
        missing = files_of_the_packages() - inside
        require(not missing, f"{wheel.name} has every file of the packages {sorted(missing)}")
        strange = {part.split("/")[0] for part in inside} - {*PACKAGES}
        require(len(strange) == 1, f"nothing else is in it but {sorted(strange)}")

        venv.create(folder / "bare", with_pip=True)
        bare = folder / "bare" / "bin"
        index = ("--index-url", given.torch_index) if given.torch_index else ()
        install(bare / "python", *index, "torch", cwd=folder)
        install(bare / "python", wheel, cwd=folder)
        where = run(
            bare / "python", "-c", "import eval_harness as e; print(e.__file__)", cwd=folder
        )
        require(str(folder / "bare") in where, "the installed package is the one that is used")
        for command in COMMANDS:
            said = run(bare / command, "--help", cwd=folder)
            require(command in said, f"{command} --help")
        empty = folder / "empty"
        empty.mkdir()
        said = run(bare / "eval_harness", "tables", "--results_dir", empty, cwd=folder)
        require("(paper)" in said, "eval_harness tables on no results shows the paper's numbers")
        install(bare / "python", f"{wheel}[report]", cwd=folder)  # its charts need matplotlib
        run(bare / "eval_harness", "report", "--results_dir", empty, cwd=folder)
        page = (empty / "report.html").read_text()
        require("</style>" in page and "</html>" in page, "eval_harness report writes its page")
        said = install_as_readme_says(folder, given.torch_index)
        require("angels-share " in said, "README's install block gives a command that runs")
        if given.audit:
            listed = run(bare / "python", "-m", "pip", "freeze", cwd=folder).splitlines()
            ours = [line for line in listed if not line.startswith("angels-share")]
            given.audit.write_text("\n".join(ours) + "\n")


if __name__ == "__main__":
    main()
