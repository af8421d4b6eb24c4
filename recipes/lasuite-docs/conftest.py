"""lasuite-docs: many services, slow when cold."""

from pytest_coopcloud import RecipeMeta


def pytest_coopcloud_recipe_meta(recipe):
    return RecipeMeta(
        health_path="/",
        health_status=[200, 302],
        health_timeout=180,
        extra_env={"TIMEOUT": "900"},
        stage_timeout=2400,
    )
