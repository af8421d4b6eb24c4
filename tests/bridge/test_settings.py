from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.settings import BadSettingsError, load_settings, setting_rows

GOOD = {
    "CCCI_BRIDGE_FORGE_URL": "https://git.example.org/",
    "CCCI_BRIDGE_FORGE_TOKEN": "0123456789abcdef0123",
    "CCCI_BRIDGE_DRONE_URL": "https://drone.example.org",
    "CCCI_BRIDGE_DRONE_TOKEN": "fedcba9876543210fedc",
    "CCCI_BRIDGE_DRONE_REPO": "coop-cloud/recipe-ci",
    "POLL_REPOS": "coop-cloud/hedgedoc, coop-cloud/guestbook",
}


@pytest.fixture(autouse=True)
def good(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("CCCI_BRIDGE_", "POLL_", "COOPCLOUD_CI_STATE")):
            monkeypatch.delenv(name)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)


def test_what_is_needed_is_enough() -> None:
    settings = load_settings()

    assert settings.forge_url == "https://git.example.org"
    assert settings.poll_repos == ("coop-cloud/hedgedoc", "coop-cloud/guestbook")
    assert settings.read_token == settings.forge_token
    assert settings.runs_dir == settings.state_dir / "runs"


def test_no_secret_is_shown() -> None:
    assert "0123456789abcdef0123" not in repr(load_settings())


def test_a_secret_comes_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "hooks"
    file.write_text("first-secret-0123456\nsecond-secret-987654\n")
    monkeypatch.setenv("CCCI_BRIDGE_WEBHOOK_SECRETS_FILE", str(file))

    secrets = load_settings().webhook_secrets

    assert [secret.get_secret_value() for secret in secrets] == ["first-secret-0123456", "second-secret-987654"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("CCCI_BRIDGE_FORGE_URL", None, "CCCI_BRIDGE_FORGE_URL is missing"),
        ("CCCI_BRIDGE_FORGE_TOKEN", None, "CCCI_BRIDGE_FORGE_TOKEN_FILE is missing"),
        ("CCCI_BRIDGE_DRONE_TOKEN", "short", "CCCI_BRIDGE_DRONE_TOKEN: it has 5 characters"),
        ("CCCI_BRIDGE_DRONE_TOKEN", "changeme-changeme-changeme", "placeholder"),
        ("CCCI_BRIDGE_DRONE_TOKEN", "aaaaaaaaaaaaaaaaaaaaaaaa", "placeholder"),
        ("CCCI_BRIDGE_WEBHOOK_SECRETS", "fine-secret-0123456,short", "it has 5 characters"),
        ("CCCI_BRIDGE_FORGE_TOKEN_FILE", "/nowhere/token", "are both given"),
        ("CCCI_BRIDGE_FORGE_READ_TOKEN_FILE", "/nowhere/token", "/nowhere/token cannot be read"),
        ("CCCI_BRIDGE_FORGE_TOKN", "x", "unknown setting CCCI_BRIDGE_FORGE_TOKN, did you mean CCCI_BRIDGE_FORGE_TOKEN"),
        ("POLL_REPOSITORIES", "x", "unknown setting POLL_REPOSITORIES"),
        ("POLL_REPOS", "guestbook", "'guestbook' is no repository"),
        ("POLL_REPOS", None, "POLL_REPOS and POLL_ORGS are empty"),
        ("POLL_ORGS", "../x", "no organisation"),
        ("CCCI_BRIDGE_FORGE_URL", "git.example.org", "is no address"),
        ("CCCI_BRIDGE_FORGE_URL", "https://user:pw@git.example.org", "is no address"),
        ("CCCI_BRIDGE_POLL_INTERVAL", "31", "CCCI_BRIDGE_POLL_INTERVAL"),
        ("CCCI_BRIDGE_PORT", "http", "CCCI_BRIDGE_PORT"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str | None, words: str
) -> None:
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)

    with pytest.raises(BadSettingsError) as raised:
        load_settings()

    assert words in raised.value.message
    assert "\n" not in raised.value.message
    assert "0123456789abcdef0123" not in raised.value.message


def test_every_setting_is_explained() -> None:
    rows = setting_rows()

    assert all(row.description.endswith(".") for row in rows)
    assert len({row.name for row in rows}) == len(rows)


def test_the_program_refuses_to_start_with_one_line() -> None:
    environ = {**GOOD, "PATH": os.environ["PATH"], "CCCI_BRIDGE_FORGE_TOKEN": "changeme"}

    done = subprocess.run(
        [sys.executable, "-m", "bridge"], env=environ, capture_output=True, text=True, timeout=30, check=False
    )

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("bridge: CCCI_BRIDGE_FORGE_TOKEN: ")


def test_the_bridge_runs_without_pytest_and_docker() -> None:
    code = "import sys; sys.modules.update({'pytest': None, 'docker': None}); import bridge.app, bridge.__main__"

    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
