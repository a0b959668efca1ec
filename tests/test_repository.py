"""The files around the package: workflows, forms, hooks, addresses, and the checks before a release."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.requirement import need_module

ROOT = Path(__file__).parent.parent
GITHUB = ROOT / ".github"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
GROUPS = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
CI_RUN = (ROOT / ".ci/run").read_text()


def read(path: Path) -> Any:
    """Return what a YAML file holds; there ``on`` is no key but true."""
    return need_module("yaml", "test").safe_load(path.read_text())


def script(name: str) -> ModuleType:
    """Return a script of ``.ci`` as a module."""
    specification = importlib.util.spec_from_file_location(name, ROOT / f".ci/{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def steps(workflow: Any) -> list[Any]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def classified(name: str) -> set[str]:
    """Return the versions that the classifiers name."""
    found = (re.fullmatch(rf"{name} :: (\d+\.\d+)", one) for one in PROJECT["classifiers"])
    return {one[1] for one in found if one}


# Workflows

workflows = pytest.mark.parametrize("name", sorted(path.name for path in GITHUB.glob("workflows/*.yml")))


@workflows
def test_a_workflow_may_only_read_has_an_end_and_names_versions(name: str) -> None:
    workflow = read(GITHUB / "workflows" / name)

    assert workflow["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] <= 90 for job in workflow["jobs"].values())
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert [one for one in used if not re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v\d+)", one)] == []


@workflows
def test_the_scripts_that_a_workflow_runs_are_there(name: str) -> None:
    run = "\n".join(step.get("run", "") for step in steps(read(GITHUB / "workflows" / name)))
    scripts = re.findall(r"\.ci/\w+", run)

    assert scripts
    assert [one for one in scripts if not (ROOT / one).stat().st_mode & 0o100] == []


def test_ci_gives_dot_ci_run_what_it_looks_for() -> None:
    workflow = read(GITHUB / "workflows/ci.yml")
    (job,) = workflow["jobs"].values()
    run = "\n".join(step.get("run", "") for step in job["steps"])

    assert re.search(r"^sudo env .*\bCI=true PYTHON=python3.11 .*\.ci/run$", run, re.MULTILINE)
    ports = {port for service in job["services"].values() for port in service["ports"]}
    looked_for = re.findall(r"(?:postgres|mysql)://\w+@127\.0\.0\.1:(\d+)/", CI_RUN)
    assert len(looked_for) == 2
    assert {f"{port}:{port}" for port in looked_for} <= ports
    (packages,) = re.findall(r'^PACKAGES="(.+)"$', CI_RUN, re.MULTILINE)
    assert set(packages.split()) - set(run.split()) == {"chromium"}, "the image has it"
    (upload,) = (step for step in job["steps"] if step.get("uses", "").startswith("actions/upload-artifact"))
    assert (upload["if"], upload["with"]["path"]) == ("failure()", ".ci/log/")
    assert workflow["concurrency"]["group"].startswith("ci-")


def test_the_classifiers_name_what_ci_tests_and_nothing_else() -> None:
    (job,) = read(GITHUB / "workflows/ci.yml")["jobs"].values()
    newest = job["strategy"]["matrix"]["include"]
    (old,) = re.findall(r"^OLD_DJANGO=(.+)$", CI_RUN, re.MULTILINE)

    assert classified("Programming Language :: Python") == {"3.11", *(one["newest"] for one in newest)}
    assert classified("Framework :: Django") == {old, *(one["django"] for one in newest)}


def test_only_the_upload_of_a_release_may_prove_who_it_is() -> None:
    jobs = read(GITHUB / "workflows/release.yml")["jobs"]

    assert {name: job.get("permissions") for name, job in jobs.items()} == {
        "build": None,
        "upload": {"id-token": "write"},
    }
    assert [step.get("run") for step in jobs["upload"]["steps"]] == [None, None], "it runs nothing of its own"


# Forms and hooks


def test_a_bug_report_asks_for_what_one_needs_to_help() -> None:
    asked = {one.get("id"): one for one in read(GITHUB / "ISSUE_TEMPLATE/bug.yml")["body"]}

    for needed in ("versions", "database", "settings", "doctor"):
        assert asked[needed]["validations"]["required"], needed
    assert "manage.py jobs doctor" in asked["doctor"]["attributes"]["label"]


def test_who_found_a_hole_is_sent_to_the_private_way() -> None:
    (security, *_) = read(GITHUB / "ISSUE_TEMPLATE/config.yml")["contact_links"]

    assert security["url"] == f"{PROJECT['urls']['Source']}/blob/main/SECURITY.md"


def test_a_hook_runs_a_tool_of_the_projects_own() -> None:
    (repository,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    tools = {re.split(r"[>\[=]", one)[0] for one in GROUPS["lint"]} | {"lint-imports"}

    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        assert hook["entry"].split()[0].removeprefix(".venv/bin/") in tools


# Addresses


PAGES = [*ROOT.glob("*.md"), ROOT / "pyproject.toml", ROOT / "docs/conf.py", *GITHUB.rglob("*.*")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_project_has_one_address(page: Path) -> None:
    named = re.findall(r"https://(?:raw\.githubusercontent|github)\.com/([\w-]+/[\w-]+)", page.read_text())

    assert {f"https://github.com/{one}" for one in named} <= {PROJECT["urls"]["Source"]}


@pytest.mark.parametrize("name", PROJECT["urls"])
def test_an_address_leads_to_a_file_that_is_there(name: str) -> None:
    source = PROJECT["urls"]["Source"]
    path = PROJECT["urls"][name].removeprefix(source).removeprefix("/blob/main")

    assert path in {"", "/issues"} or (ROOT / path[1:]).is_file()


METADATA = """Metadata-Version: 2.4
Project-URL: Documentation, https://example.com
Project-URL: Source, https://example.com
Project-URL: Changelog, https://example.com
{issues}

[a link]({link})
"""
ISSUES = "Project-URL: Issues, https://example.com"


def test_a_wheel_that_names_its_addresses_is_complete() -> None:
    complete = METADATA.format(issues=ISSUES, link="https://example.com/docs")

    assert script("check_wheel").problems_of_metadata(complete) == []


def test_a_wheel_without_an_address_or_with_a_link_to_nowhere_is_refused() -> None:
    lacking = METADATA.format(issues="Keywords: django", link="docs/index.md")

    assert script("check_wheel").problems_of_metadata(lacking) == [
        "the metadata name no address for Issues",
        "the README's link to docs/index.md is relative",
    ]


# Before a release


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in which version 0.2.0 is written down everywhere."""
    (tmp_path / "jobify_django").mkdir()
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "0.2.0"\n')
    (tmp_path / "jobify_django/__init__.py").write_text('__version__ = "0.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 0.2.0 - 2027-01-31\n\n## 0.1.0 - 2026-12-01\n")
    return tmp_path


def test_a_version_that_is_written_down_everywhere_can_be_released(checkout: Path) -> None:
    assert script("check_release").problems("0.2.0", checkout) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("pyproject.toml", "0.2.0", "0.1.0", "pyproject.toml has version 0.1.0"),
        ("jobify_django/__init__.py", "0.2.0", "0.1.0", "jobify_django.__version__ is 0.1.0"),
        (
            "CHANGELOG.md",
            "## 0.2.0 - 2027-01-31",
            "## Unreleased",
            "CHANGELOG.md begins with 'Unreleased', not with '0.2.0 - YYYY-MM-DD'",
        ),
        (
            "CHANGELOG.md",
            " - 2027-01-31",
            "",
            "CHANGELOG.md begins with '0.2.0', not with '0.2.0 - YYYY-MM-DD'",
        ),
    ],
    ids=["pyproject", "package", "changelog", "date"],
)
def test_a_version_that_is_missing_somewhere_cannot_be_released(
    checkout: Path, file: str, old: str, new: str, problem: str
) -> None:
    page = checkout / file
    page.write_text(page.read_text().replace(old, new, 1))

    assert script("check_release").problems("0.2.0", checkout) == [problem]


def test_this_checkout_has_one_version() -> None:
    package = (ROOT / "jobify_django/__init__.py").read_text()

    assert script("check_release").version_of(package) == PROJECT["version"]
