"""n8n: workflows, behind a set-up form for the first owner."""

from pytest_coopcloud import Check, RecipeMeta


def pytest_coopcloud_recipe_meta(recipe):
    return RecipeMeta(health_path="/healthz", health_timeout=120, checks=[Check(path="/", title="n8n")])
