from __future__ import annotations

from pytest_coopcloud.results import CauseClass
from pytest_coopcloud.wait import Failure, ServiceState, StackState, all_converged, any_failed, cause_of


def service(name: str = "app", **changes: object) -> ServiceState:
    return ServiceState(**{"name": name, "wanted": 1, "ready": 0, **changes})  # type: ignore[arg-type]


def failure(state: str = "failed", error: str = "task: non-zero exit (1)", slot: str = "1") -> Failure:
    return Failure(task="t", slot=slot, state=state, error=error, exit_code=1)


def stack(*services: ServiceState) -> StackState:
    return StackState(services)


def test_stack_with_all_tasks_has_converged() -> None:
    assert all_converged(stack(service(ready=1), service("db", ready=1)))


def test_stack_without_services_has_not_converged() -> None:
    assert not all_converged(stack())


def test_update_that_goes_on_is_not_settled_though_the_old_task_runs() -> None:
    assert not all_converged(stack(service(ready=1, update="updating")))


def test_rejected_task_ends_the_wait_with_its_own_error() -> None:
    assert any_failed(stack(service(failures=(failure("rejected", "No such image: x:1"),)))) == (
        "service app: task rejected: No such image: x:1"
    )


def test_rolled_back_update_ends_the_wait() -> None:
    state = stack(service(ready=1, update="rollback_started", failures=(failure(error="boom"),)))

    assert any_failed(state) == "the update of service app was rolled back: boom"


def test_one_exit_is_no_loop() -> None:
    assert any_failed(stack(service(failures=(failure(),)))) == ""


def test_three_exits_are_a_loop_where_nothing_else_is_on_its_way() -> None:
    assert "exits in a loop (3 times)" in any_failed(stack(service(failures=(failure(),) * 3), service("db", ready=1)))


def test_three_exits_are_borne_while_the_database_is_still_starting() -> None:
    assert any_failed(stack(service(failures=(failure(),) * 3), service("db"))) == ""


def test_nine_exits_are_a_loop_whatever_else_is_on_its_way() -> None:
    assert "exits in a loop" in any_failed(stack(service(failures=(failure(),) * 9), service("db")))


def test_full_disk_is_never_the_recipes_fault() -> None:
    assert cause_of("task failed: write /x: no space left on device") is CauseClass.INFRASTRUCTURE
    assert cause_of("task failed: exit 1") is CauseClass.RECIPE


def test_service_that_swarm_does_not_start_again_ends_the_wait() -> None:
    assert any_failed(stack(service(given_up="its task ended"))) == "service app: its task ended"
