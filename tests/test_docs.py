"""The docs are complete, and lead nowhere that is not there."""

import argparse
import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

import bridge.settings
import dashboard.settings
import pytest_coopcloud
from pytest_coopcloud import (
    Allow,
    Check,
    RecipeMeta,
    __main__,
    browser_fixtures,
    fixtures,
    hookspecs,
    inventory,
    plugin,
)
from pytest_coopcloud.results import Artifact, Cause, RunResult, ServiceImage, StageResult, TestOutcome, Wait

ROOT = Path(__file__).parents[1]
REFERENCE = (ROOT / "docs" / "reference.md").read_text()
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")

#: Variables of ours in the source; those that the settings of a service name are asked of the settings themselves.
OURS = re.compile(r"\b(?:COOPCLOUD|CCCI)_[A-Z0-9_]*[A-Z0-9]\b")


def section(title: str) -> str:
    """Return what stands below a heading, down to the next one of its level or above."""
    found = re.search(rf"^(#+) {re.escape(title)}\n", REFERENCE, re.MULTILINE)
    assert found, f"docs/reference.md has no section {title!r}"
    end = re.compile(f"^#{{1,{len(found[1])}}} ", re.MULTILINE)
    return end.split(REFERENCE[found.end() :], maxsplit=1)[0]


def missing(names: Iterator[str] | list[str], text: str) -> list[str]:
    """Return the names that do not stand in the text as code, whatever arguments follow them."""
    return sorted(name for name in set(names) if not re.search(rf"`[^`\n]*(?<![\w-]){re.escape(name)}(?![\w-])", text))


class OptionGroup:
    """Takes what a parser of pytest's would."""

    def __init__(self) -> None:
        self.options: dict[str, str] = {}
        self.ini: list[str] = []

    def getgroup(self, *_: str) -> "OptionGroup":
        return self

    def addoption(self, name: str, **kwargs: str) -> None:
        self.options[name] = kwargs.get("help", "")

    def addini(self, name: str, *_: str, **__: object) -> None:
        self.ini.append(name)


@pytest.fixture
def declared() -> OptionGroup:
    group = OptionGroup()
    plugin.pytest_addoption(group)
    return group


def test_every_option_is_explained(declared):
    assert len(declared.options) > 10
    assert missing(list(declared.options), section("Options")) == []
    assert missing(declared.ini, section("Options")) == []


def test_every_variable_that_an_options_help_names_stands_beside_it(declared):
    rows = {line.split("`")[1]: line for line in section("Options").splitlines() if line.startswith("| `--")}
    named = {
        option: found[1]
        for option, text in declared.options.items()
        if (found := re.search(r"\benv ([A-Z_]+)\)", text))
    }

    assert len(named) > 10
    assert [option for option, variable in named.items() if f"`{variable}`" not in rows[option]] == []


def test_no_option_is_explained_that_does_not_exist(declared):
    explained = re.findall(r"^\| `(--[a-z-]+)`", section("Options"), re.MULTILINE)

    assert sorted(explained) == sorted(declared.options)


def variables_in(folder: str) -> Iterator[str]:
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield from OURS.findall(node.value)


def test_every_variable_of_the_code_is_explained():
    found = {name for folder in ("pytest_coopcloud", "bridge", "dashboard") for name in variables_in(folder)}
    # Prefixes are no variables.
    found -= {bridge.settings.PREFIX.rstrip("_"), dashboard.settings.PREFIX.rstrip("_"), "COOPCLOUD"}

    assert "COOPCLOUD_CI_STATE" in found
    assert missing(sorted(found), REFERENCE) == []


def test_every_variable_that_the_code_reads_is_explained():
    """By whatever name: `os.environ["X"]`, `os.environ.get("X")`."""
    read = re.compile(r"""environ(?:\.get\(|\[)\s*["']([A-Z][A-Z0-9_]+)["'](?!\]\s*=[^=])""")
    sources = (path for folder in ("pytest_coopcloud", "bridge", "dashboard") for path in (ROOT / folder).rglob("*.py"))
    found = {name for path in sources for name in read.findall(path.read_text())} - {"TERM"}

    assert "XDG_STATE_HOME" in found
    assert missing(sorted(found), REFERENCE) == []


def test_every_hook_is_explained_with_its_arguments():
    hooks = {name: value for name, value in vars(hookspecs).items() if name.startswith("pytest_coopcloud_")}
    calls = [
        f"{name}({', '.join(hook.__code__.co_varnames[: hook.__code__.co_argcount])})" for name, hook in hooks.items()
    ]

    assert len(calls) >= 5
    assert [call for call in calls if f"`{call}`" not in section("Hooks")] == []
    assert [name for name, hook in hooks.items() if not hook.__doc__] == []


def test_every_fixture_is_explained():
    kind = type(fixtures.app)
    named = [
        name
        for module in (fixtures, browser_fixtures)
        for name, value in vars(module).items()
        if isinstance(value, kind) and not name.startswith("_")
    ]

    assert {"recipe", "app", "http", "deploy", "page"} <= set(named)
    assert missing(named, section("Fixtures")) == []


@pytest.mark.parametrize(
    ("model", "title"),
    [
        (RecipeMeta, "RecipeMeta"),
        (Check, "Check"),
        (Allow, "Allow"),
        (RunResult, "The run"),
        (Artifact, "The run"),
        (StageResult, "A stage"),
        (Cause, "A stage"),
        (Wait, "A stage"),
        (ServiceImage, "A stage"),
        (TestOutcome, "A stage"),
    ],
)
def test_every_key_is_explained(model: type[BaseModel], title: str):
    keys = [*model.model_fields, *model.model_computed_fields]

    assert missing(keys, section(title)) == []


@pytest.mark.parametrize("title", ["RecipeMeta", "Check", "Allow"])
def test_no_key_of_an_enrolment_is_explained_that_does_not_exist(title: str):
    own = section(title).split("\n### ")[0]
    explained = re.findall(r"^\| `(\w+)`", own, re.MULTILINE)

    assert sorted(explained) == sorted(getattr(pytest_coopcloud, title).model_fields)


@pytest.mark.parametrize("settings", [bridge.settings, dashboard.settings], ids=["Bridge", "Dashboard"])
def test_every_setting_is_explained_as_the_code_does(settings):
    title = "Bridge" if settings is bridge.settings else "Dashboard"
    rows = {line.split("`")[1]: line for line in section(title).splitlines() if line.startswith("| `")}

    assert sorted(rows) == sorted(row.name for row in settings.setting_rows())
    assert [row.name for row in settings.setting_rows() if not rows[row.name].endswith(f"| {row.description} |")] == []
    assert [row.name for row in settings.setting_rows() if f"| {_shown(row.default)} |" not in rows[row.name]] == []


def _shown(default: str) -> str:
    return {"": "", "required": "required", "True": "true"}.get(default, f"`{default}`")


def test_every_command_is_explained_with_its_options(monkeypatch: pytest.MonkeyPatch):
    parsers: dict[str, argparse.ArgumentParser] = {}
    add = argparse._SubParsersAction.add_parser

    def remember(self, name, **kwargs):
        parsers[name] = add(self, name, **kwargs)
        return parsers[name]

    monkeypatch.setattr(argparse._SubParsersAction, "add_parser", remember)
    with pytest.raises(SystemExit):
        __main__.main(["--help"])
    text = section("coopcloud-ci")
    options = [option for one in parsers.values() for action in one._actions for option in action.option_strings[-1:]]

    assert {"janitor", "teardown"} <= set(parsers)
    assert [name for name in parsers if f"`coopcloud-ci {name}`" not in text] == []
    assert missing([option for option in options if option != "--help"], text) == []


def test_every_label_is_explained():
    labels = {str(value).partition("=")[0] for name, value in vars(inventory).items() if name.endswith("_LABEL")}

    assert missing(sorted(labels), section("Labels")) == []


def test_every_public_name_is_explained_and_has_a_docstring():
    assert missing(list(pytest_coopcloud.__all__), section("Names to import")) == []
    for name in pytest_coopcloud.__all__:
        public = getattr(pytest_coopcloud, name)
        assert public.__dict__.get("__doc__"), f"{name} has no docstring"
        for attribute, value in vars(public).items():
            is_call = callable(value) or isinstance(value, (property, classmethod, staticmethod))
            module = getattr(getattr(value, "fget", None) or value, "__module__", None) or ""
            if is_call and module.startswith("pytest_coopcloud") and not attribute.startswith(("_", "model_")):
                assert value.__doc__, f"{name}.{attribute} has no docstring"


@pytest.mark.parametrize("document", PAGES, ids=lambda document: document.name)
def test_every_relative_link_leads_to_a_file_and_its_heading(document: Path):
    for link in LINK.findall(document.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, heading = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.is_relative_to(ROOT), f"{document.name}: {link} leads out of the repository"
        assert target.exists(), f"{document.name}: {link} leads to nothing"
        if heading:
            assert heading in {anchor(line) for line in target.read_text().splitlines() if line.startswith("#")}, link


def anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lstrip("# ").lower()).replace(" ", "-")


def test_every_dev_command_that_the_docs_show_exists():
    usage = subprocess.run([str(ROOT / "dev"), "help"], capture_output=True, text=True, check=True, timeout=30).stdout
    known = set(re.findall(r"^  ([a-z]+)\b", usage, re.MULTILINE))
    shown = {word for page in PAGES for word in re.findall(r"\./dev ([a-z]+)", page.read_text())}

    assert {"demo", "test"} <= known
    assert shown - known == set()


@pytest.mark.xfail(reason="runbook.md shows `coopcloud-ci doctor`, which does not exist yet", strict=False)
def test_every_coopcloud_ci_command_that_the_docs_show_stands_in_the_reference():
    shown = {word for page in PAGES for word in re.findall(r"coopcloud-ci ([a-z]+)\b[`\n ]", page.read_text())}

    assert [word for word in sorted(shown) if f"`coopcloud-ci {word}`" not in section("coopcloud-ci")] == []


def test_readme_shows_how_to_begin():
    readme = (ROOT / "README.md").read_text()

    for command in ("./dev demo", "./dev test", "pip install pytest-coopcloud", "pytest --recipe=."):
        assert command in readme
