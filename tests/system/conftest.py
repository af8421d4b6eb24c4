"""One private lab for the session, and the six guarantees checked after every test."""

import pytest

from lab import control
from lab.drone import Drone
from lab.gitea import Forge
from tests.system.guarantees import Guarantees

#: The bridge's patience is made for people; here nobody waits for nothing.
HASTY = {
    "CCCI_BRIDGE_POLL_INTERVAL": "2",
    "CCCI_BRIDGE_ENROL_INTERVAL": "2",
    "CCCI_BRIDGE_SETTLE": "1",
    "CCCI_BRIDGE_PROGRESS_INTERVAL": "0.3",
    "CCCI_BRIDGE_EDIT_INTERVAL": "1",
    "CCCI_BRIDGE_IN_DOUBT": "2",
    "CCCI_BRIDGE_ZOMBIE_GRACE": "5",
    "CCCI_BRIDGE_LIMIT_USER_HOUR": "1000",
    "CCCI_BRIDGE_LIMIT_REPO_HOUR": "1000",
}


def pytest_collection_modifyitems(items):
    for item in items:
        if "/tests/system/" in str(item.path):
            item.add_marker(pytest.mark.system)


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab") / "lab"
    try:
        yield control.up(folder, recipes=("hello", "guestbook"), bridge=HASTY)
    finally:
        control.down(folder)


@pytest.fixture
def forge(lab):
    with Forge(lab) as client:
        yield client


@pytest.fixture
def drone(lab):
    with Drone(lab) as client:
        yield client


@pytest.fixture(scope="session")
def witness(lab):
    """Things in Docker that are no run's: whoever takes them away takes too much."""
    made = Guarantees.plant_witness()
    yield made
    made.remove()


@pytest.fixture(autouse=True)
def guarantees(lab, witness):
    checker = Guarantees(lab, witness)
    yield checker
    checker.check()
