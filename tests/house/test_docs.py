"""Every command, flag, target, link and line of Python in the documents is right."""

import ast
import importlib
import json
import re
import shlex

import pytest
import yaml
from places import ROOT

from angels_share.flags import parse
from angels_share.training_flags import training_flags
from distil_trainer.cli import PRETRAIN
from distil_trainer.cli import PROGRAM as DISTIL_TRAINER
from eval_harness.cli import PROGRAM as EVAL_HARNESS
from eval_harness.cli import command

DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "RELEASING.md",
             "CODE_OF_CONDUCT.md",
             *sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.md")
                     if "_build" not in path.parts))  # fmt: skip
NOTEBOOK = "docs/first-steps.ipynb"

SCRIPTS = {
    "run_pretrain_distill": PRETRAIN,
    "run_glue": command("glue"),
    "run_squad_distill": command("squad"),
}
PROGRAMS = {
    (program.name, name): program.command(name)
    for program in (DISTIL_TRAINER, EVAL_HARNESS)
    for name in program.commands
}
FLAGS = {
    name
    for each in (*SCRIPTS.values(), *PROGRAMS.values())
    for flag in each.flags
    for name in (flag.name, flag.alias)
} | {"config", "help", "help_all"}
# Flags of other programs (pip, torchrun, the benchmarks), and ours under names that are refused.
OTHERS = {
    "index-url", "logdir", "nproc_per_node", "tag", "hub_token",
    "check", "rehearse", "device", "size", "peers", "ragged", "restrict", "keep_memory", "turns",
    "achieved", "gated", "nnodes", "max_restarts", "shutdown_timeout", "dependency",
}  # fmt: skip
# Describes another program's flags beside ours, and files at the root that name no flag of today.
WITHOUT_FLAGS = {"docs/migration.md", "CHANGELOG.md"}

COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
FENCE = re.compile(r"^ *```(\S*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:[^`\n]|\n(?! *\n))+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def text_of(name):
    """The text that a reader sees."""
    return COMMENT.sub("", (ROOT / name).read_text(encoding="utf-8"))


def prose_of(name):
    """The text without its fenced blocks."""
    return FENCE.sub("", text_of(name))


def blocks(name, *languages):
    return [body for language, body in FENCE.findall(text_of(name)) if language in languages]


def lines_of_commands(name):
    """Lines of shell in fenced blocks, and commands with flags among inline code."""
    for body in blocks(name, "", "bash", "shell"):
        for line in body.replace("\\\n", " ").splitlines():
            yield line.strip()
    mentioned = [" ".join(code.split()) for code in INLINE.findall(prose_of(name))]
    yield from (code for code in mentioned if " --" in code or code.startswith("make "))


OURS = re.compile(
    r"(?:python|(?:srun )?torchrun [^.]+) (?:(run_\w+)\.py|-m (distil_trainer|eval_harness) (\w+))"
)


def as_ours(line):
    """The command and its words, if a line is a whole command of ours; else None."""
    if not (found := OURS.match(line)):
        return None
    script, program, name = found.groups()
    each = SCRIPTS.get(script) or PROGRAMS.get((program, name))
    assert each, f"no such command: {line}"
    return each, shlex.split(line[found.end() :], comments=True)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_in_a_document_is_accepted(name):
    """Prevents a command in a document that ends with 'unknown flag'."""
    for line in lines_of_commands(name):
        if "…" not in line and (found := as_ours(line)):
            each, words = found
            parse(each.flags, words, takes_training_flags=each.takes_training_flags)


def test_the_kubernetes_job_is_a_command_of_ours():
    """Prevents a file to copy that no cluster can parse, or whose command ends with status 2."""
    (body,) = blocks("docs/scale-training.md", "yaml")
    service, job = yaml.safe_load_all(body)
    assert service["spec"]["selector"]["job-name"] == job["metadata"]["name"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    line = " ".join(container["command"])
    _, script, words = line.partition("run_pretrain_distill.py ")
    assert script
    parse(PRETRAIN.flags, shlex.split(words), takes_training_flags=True)


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name not in WITHOUT_FLAGS])
def test_every_flag_in_a_document_exists(name):
    """Prevents a table of flags that outlives one of them."""
    known = {*FLAGS, *training_flags(), *OTHERS}
    for code in INLINE.findall(prose_of(name)):
        for flag in re.findall(r"(?<![\w-])--([a-zA-Z][\w-]*)", code):
            assert flag in known, f"{name}: `{code}`"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_target_of_make_in_a_document_exists(name):
    """Prevents `make something` that make doesn't know."""
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    for line in lines_of_commands(name):
        if found := re.match(r"make ([a-z-]+)", line):
            assert found[1] in targets, f"{name}: {line}"


def python_in(name):
    if name == NOTEBOOK:
        cells = json.loads(text_of(name))["cells"]
        return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return blocks(name, "python")


def check_python(name):
    for source in python_in(name):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    importlib.import_module(alias.name)
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{name}: {node.module}.{alias.name}"


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if python_in(name)])
def test_python_in_a_document_compiles_and_finds_its_imports(name):
    """Prevents an example that ends with an ImportError."""
    check_python(name)


def test_python_in_the_notebook_compiles_and_finds_its_imports():
    """Prevents a notebook that is only found to be broken by the slow test that executes it."""
    pytest.importorskip("eval_harness.api")
    check_python(NOTEBOOK)


def test_the_notebook_holds_no_output():
    """Prevents numbers in the repository that nobody can say the origin of."""
    for cell in json.loads(text_of(NOTEBOOK))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def anchors_of(path):
    """The anchors of a document's headings, as GitHub and MyST make them."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_within_the_repository_leads_somewhere(name):
    """Prevents a link to a page that was renamed, or to a section that is gone."""
    for link in LINK.findall(prose_of(name)):
        if re.match(r"[a-z]+:", link):
            continue
        page, _, anchor = link.partition("#")
        target = (ROOT / name).parent / page if page else ROOT / name
        assert target.exists(), f"{name}: {link}"
        if anchor:
            assert anchor in anchors_of(target), f"{name}: {link}"


def test_the_documents_have_commands_links_and_python():
    """Prevents these tests from looking at nothing, as with another style of fences."""
    commands = [found for line in lines_of_commands("docs/distil.md") if (found := as_ours(line))]
    assert commands[0][0] is PRETRAIN
    assert python_in("docs/distil.md")
    assert LINK.findall(prose_of("docs/index.md"))
    assert "how-certain-a-difference-is" in anchors_of(ROOT / "docs/probe.md")
