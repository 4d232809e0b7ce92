"""What a release, a contributor and a citation rest on: versions, workflows, templates."""

import re
import sys
import tomllib

import pytest
import yaml
from places import ROOT, TESTS

WORKFLOWS = sorted(path.name for path in ROOT.glob(".github/workflows/*.yml"))
FORMS = sorted(path.name for path in ROOT.glob(".github/ISSUE_TEMPLATE/*.yml"))


def parsed(name):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_every_file_states_one_version(run_script):
    """Prevents a release whose changelog or citation speaks of another version."""
    assert run_script("tests/versions.py").returncode == 0
    other = run_script("tests/versions.py", "--tag", "v99.0.0")
    assert other.returncode == 1
    assert "the tag: 99.0.0" in other.stderr


def test_a_version_that_is_not_found_disagrees(monkeypatch):
    """Prevents two files that both state nothing from agreeing."""
    monkeypatch.syspath_prepend(TESTS)
    import versions

    found, days = versions.stated()
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in found.values())
    assert all(re.fullmatch(r"\d{4}-\d{2}-\d{2}", day) for day in days.values())
    sys.modules.pop("versions")


def test_the_changelog_has_room_above_its_newest_version():
    """Prevents changes that are written under a version that is out already."""
    titles = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert titles[0] == "Unreleased"
    versions = [tuple(map(int, title.partition(" ")[0].split("."))) for title in titles[1:]]
    assert versions == sorted(versions, reverse=True)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_asks_for_no_more_than_it_needs(name):
    """Prevents a workflow that doesn't parse, runs for hours, or may write to the repository."""
    workflow = parsed(f".github/workflows/{name}")
    assert True in workflow  # YAML 1.1 reads the key `on` as a boolean
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 120
        steps = [step for step in job["steps"] if "checkout" in step.get("uses", "")]
        assert all(step["with"]["persist-credentials"] is False for step in steps)


def test_only_the_job_that_publishes_may():
    """Prevents a build or a test, which run others' code, from holding the right to publish."""
    jobs = parsed(".github/workflows/release.yml")["jobs"]
    allowed = [name for name, job in jobs.items() if "permissions" in job]
    assert allowed == ["publish"]
    publish = jobs["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["environment"] == "pypi"
    assert publish["needs"] == "try"
    assert jobs["try"]["needs"] == "build"
    assert not any("run" in step for step in publish["steps"])


def test_continuous_integration_runs_every_python_that_is_supported():
    """Prevents a version in pyproject.toml that nothing is run with."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    supported = {line.rpartition(" ")[2] for line in project["classifiers"]
                 if line.startswith("Programming Language")}  # fmt: skip
    for name, job in (("check", "check"), ("release", "try")):
        matrix = parsed(f".github/workflows/{name}.yml")["jobs"][job]["strategy"]["matrix"]
        assert set(matrix["python"]) == supported


@pytest.mark.parametrize("name", [name for name in FORMS if name != "config.yml"])
def test_a_form_is_one_that_github_shows(name):
    """Prevents a form that GitHub drops in silence, since a field is missing or named twice."""
    form = parsed(f".github/ISSUE_TEMPLATE/{name}")
    assert form["name"]
    assert form["description"]
    kinds = {"markdown": "value", "textarea": "label", "input": "label"}
    for field in form["body"]:
        assert field["attributes"][kinds[field["type"]]]
    ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert len(ids) == len(set(ids)) > 1


def test_the_citation_names_software_and_paper():
    """Prevents a citation file that GitHub can't show, or one that leaves the paper out."""
    citation = parsed("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    (paper,) = citation["references"]
    assert paper["identifiers"][0]["value"] == "arXiv:1910.01108"


def test_the_other_settings_parse():
    """Prevents a bot that stops in silence."""
    assert parsed(".github/dependabot.yml")["version"] == 2
    assert {each["package-ecosystem"] for each in parsed(".github/dependabot.yml")["updates"]} == {
        "pip",
        "github-actions",
    }
    assert parsed(".pre-commit-config.yaml")["repos"]
    assert parsed(".github/ISSUE_TEMPLATE/config.yml") == {"blank_issues_enabled": True}
