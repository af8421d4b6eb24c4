from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.commands import BODY_LIMIT, Verb, covers, parse
from pytest_coopcloud.results import Stage

UPGRADE, INSTALL = Stage.UPGRADE, Stage.INSTALL


@pytest.mark.parametrize(
    "body",
    [
        "!testme",
        "  !testme  ",
        "!testme\r\n",
        "\n\n!testme\n",
        "Looks good.\n\n!testme",
        "Looks good.\n!testme\nThanks",
        "> quoted\n\n!testme",
        "```\ncode\n```\n!testme",
        "- a list\n\n!testme",
        "<!-- hidden -->\n\n!testme",
        "\t!testme",
    ],
)
def test_a_line_of_its_own_counts(body: str) -> None:
    command = parse(body)

    assert command is not None
    assert (command.verb, command.stages) == (Verb.RUN, ())


@pytest.mark.parametrize(
    "body",
    [
        "",
        "!testmex",
        "x!testme",
        "please !testme",
        "**!testme**",
        "`!testme`",
        "> !testme",
        ">!testme",
        "> a\n!testme",
        "```\n!testme\n```",
        "```sh\n!testme",
        "````\n```\n!testme\n````",
        "~~~\n!testme\n```\n~~~",
        "look:\n\n    !testme",
        "look:\n\n\t!testme",
        "<!--\n!testme\n-->",
        "<!-- !testme -->",
        "<pre>\n!testme\n</pre>",
        "- !testme",
        "1. !testme",
        "- a\n  !testme",
        "\u200b!testme",
        "\u00a0!testme",
        "！testme",  # noqa: RUF001
        "!Testme",
        "! testme",
        "!testme" + " " * BODY_LIMIT,
    ],
)
def test_near_misses_do_not_count(body: str) -> None:
    assert parse(body) is None


@pytest.mark.parametrize(
    ("body", "verb", "stages", "unknown"),
    [
        ("!testme stages=upgrade", Verb.RUN, (UPGRADE,), ""),
        ("!testme stages=upgrade,install", Verb.RUN, (INSTALL, UPGRADE), ""),
        ("!testme cancel", Verb.CANCEL, (), ""),
        ("!testme help", Verb.HELP, (), ""),
        ("!testme stages=", Verb.UNKNOWN, (), "stages="),
        ("!testme stages=teardown", Verb.UNKNOWN, (), "stages=teardown"),
        ("!testme stages=install;id", Verb.UNKNOWN, (), "stages=install;id"),
        ("!testme please", Verb.UNKNOWN, (), "please"),
        ("!testme cancel now", Verb.UNKNOWN, (), "cancel now"),
    ],
)
def test_words(body: str, verb: Verb, stages: tuple[Stage, ...], unknown: str) -> None:
    command = parse(body)

    assert command is not None
    assert (command.verb, command.stages, command.unknown) == (verb, stages, unknown)
    assert parse(f"!testme {command.words}") == command


def test_a_run_of_all_covers_every_other() -> None:
    assert covers((), ())
    assert covers((), (UPGRADE,))
    assert covers((INSTALL, UPGRADE), (UPGRADE,))
    assert not covers((UPGRADE,), ())
    assert not covers((UPGRADE,), (INSTALL,))


@given(st.text(alphabet="!testme \t\n\r`~<>-a", max_size=60))
def test_any_text_is_a_command_or_none(body: str) -> None:
    command = parse(body)

    assert command is None or any(line.strip().startswith("!testme") for line in body.splitlines())
