"""The files around the package agree with each other."""

import fnmatch
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tfcourse

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]
EXTRAS = PROJECT["optional-dependencies"]

# A folder of somebody's own machine (that of "me" is nobody's), or the address of a
# package registry. What a URL goes on with may not stand before the slash.
FOREIGN = re.compile(
    r"(?<![\w.~-])/(?:work|home|root|Users)/(?!me\b)[\w.]"
    r"|[A-Z]:\\Users\\"
    r"|\b(?:test\.)?pypi\.org|pythonhosted\.org|download\.pytorch\.org"
    r"|registry\.npmjs\.org|conda\.anaconda\.org"
)


def named() -> list[Requirement]:
    """Return every requirement that pyproject.toml names."""
    groups = [PROJECT["dependencies"], *EXTRAS.values()]
    return [Requirement(line) for group in groups for line in group]


def pins() -> dict[str, str]:
    """Return {package: version} of constraints.txt; each line is an exact pin."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def project_files() -> Iterator[Path]:
    """Yield the project's files: all but what .gitignore names."""
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    patterns = [".git", *(line.rstrip("/") for line in ignored)]

    def kept(name: str) -> bool:
        return not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)

    for folder, folders, files in os.walk(ROOT):
        folders[:] = filter(kept, folders)
        yield from (Path(folder, name) for name in files if kept(name))


def commands(text: str) -> set[str]:
    """Return the X of every `make X` written as code in a page.

    Code is what stands between back-ticks or in a fenced block.
    """
    code = re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL)
    return set(re.findall(r"\bmake ([a-z]+)", "\n".join(code)))


def test_the_version_is_the_same_everywhere() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(\d[^\]]*)\]", changes, re.MULTILINE)
    assert newest is not None
    assert PROJECT["version"] == tfcourse.__version__ == newest[1]


@pytest.mark.parametrize("requirement", named(), ids=str)
def test_every_dependency_is_pinned_within_its_range(requirement: Requirement) -> None:
    version = pins().get(canonicalize_name(requirement.name))
    assert version is not None, f"constraints.txt lacks {requirement.name}"
    assert version in requirement.specifier


def test_pins_are_of_versions_that_every_platform_has() -> None:
    assert [name for name, version in pins().items() if "+" in version] == []


def test_the_book_is_made_without_torch() -> None:
    book = {canonicalize_name(Requirement(line).name) for line in EXTRAS["book"]}
    assert not book & {"torch", "numpy", "matplotlib", "tfcourse"}


def test_conda_installs_what_pyproject_names() -> None:
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    python, pip, packages = yaml.safe_load(text)["dependencies"]
    assert python == f"python{PROJECT['requires-python']}"
    assert pip == "pip"
    assert packages == {
        "pip": [
            "--constraint constraints.txt",
            "--editable .[lab,book,test]",
        ]
    }


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        "book/how_to_use.md",
        "book/contributing.md",
        "book/teaching.md",
    ],
)
def test_every_command_that_a_page_names_exists(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    written = commands((ROOT / page).read_text(encoding="utf-8"))
    assert written, f"{page} names no command"
    assert written <= targets


def test_the_help_of_make_lists_every_command() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY:((?:.*\\\n)*.*)$", makefile, re.MULTILINE)
    assert phony is not None
    listed = set(re.findall(r"^([a-z]+):.*  ## ", makefile, re.MULTILINE))
    assert listed == set(phony[1].replace("\\", "").split()) - {"FORCE", "help"}


def test_continuous_integration_runs_the_readme_s_test_command() -> None:
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert script.splitlines()[-1] == "make test"
    assert os.access(ROOT / ".ci/run", os.X_OK)
    assert "make test" in (ROOT / "README.md").read_text(encoding="utf-8")


def workflows() -> dict[str, dict[str, Any]]:
    """Return {name: workflow} of the continuous integration."""
    paths = sorted((ROOT / ".github/workflows").glob("*.yml"))
    return {p.stem: yaml.safe_load(p.read_text(encoding="utf-8")) for p in paths}


def triggers(workflow: dict[str, Any]) -> dict[str, Any]:
    return workflow[True]  # how YAML reads the key `on`


def test_every_workflow_runs_what_exists_and_nothing_else() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert set(workflows()) == {"check", "publish", "weekly"}
    for workflow in workflows().values():
        steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
        runs = [step["run"] for step in steps if "run" in step]
        assert runs
        for run in runs:
            program, _, target = run.partition(" ")
            is_target = program == "make" and f"\n{target}:" in makefile
            assert is_target or (ROOT / program).is_file(), run


def test_workflows_may_read_and_only_the_deployment_more() -> None:
    for name, workflow in workflows().items():
        assert workflow["permissions"] == {"contents": "read"}, name
        for title, job in workflow["jobs"].items():
            deploys = (name, title) == ("publish", "deploy")
            pages = {"pages": "write", "id-token": "write"}
            assert job.get("permissions") == (pages if deploys else None), title
            assert job["timeout-minutes"] <= 60
            for action in (step["uses"] for step in job["steps"] if "uses" in step):
                assert re.fullmatch(r"actions/[a-z-]+@v\d+", action)


def test_workflows_run_when_they_should() -> None:
    found = workflows()
    assert "pull_request" in triggers(found["check"])
    assert triggers(found["weekly"])["schedule"]
    (newest,) = found["weekly"]["jobs"].values()
    assert newest["env"]["CONSTRAINTS"] == ""
    assert triggers(found["publish"])["push"] == {"branches": ["main"]}


def test_no_file_names_somebody_s_machine_or_a_package_registry() -> None:
    files = list(project_files())
    assert ROOT / "Makefile" in files
    found = []
    for path in files:
        text = path.read_text(encoding="utf-8", errors="replace")
        for match in FOREIGN.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{path.relative_to(ROOT)}:{line}: {match[0]}")
    assert found == []


# Written with | for a slash and the dot apart, or this file would be found itself.
@pytest.mark.parametrize(
    "text", ["open |home|ann|x", '"|root|.cache"', "C:\\Users\\ann", "at pypi" + ".org"]
)
def test_foreign_names_are_recognised(text: str) -> None:
    assert FOREIGN.search(text.replace("|", "/"))


@pytest.mark.parametrize("text", ["example.org/home/x", "~/work/x", "./root/x"])
def test_other_paths_are_not_foreign(text: str) -> None:
    assert not FOREIGN.search(text)


def test_the_citation_is_complete_and_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "abstract", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["authors"] == [{"name": PROJECT["authors"][0]["name"]}]
    assert str(citation["version"]) == PROJECT["version"]
    assert " AND ".join(citation["license"]) == PROJECT["license"]


def test_the_licence_of_the_text_is_told_wherever_it_is_asked_for() -> None:
    for name in ("LICENSE-text", "README.md", "book/teaching.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert re.search(r"CC[ -]BY[ -]4\.0", text), name
    assert {"LICENSE", "LICENSE-text"} == set(PROJECT["license-files"])
    assert all((ROOT / name).is_file() for name in PROJECT["license-files"])


def test_links_for_teachers_and_of_the_start_page_lead_to_files() -> None:
    for name in ("book/teaching.md", "notebooks/START_HERE.md"):
        page = ROOT / name
        links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
        chapters = {path.name for path in (ROOT / "notebooks").glob("*.ipynb")}
        assert chapters <= {Path(link).name for link in links}, name
        for link in links:
            assert (page.parent / link).is_file(), f"{name}: {link}"
