"""cryptpad: needs a second host, from which it serves what must not reach the first one's storage."""

from pytest_coopcloud import Check, RecipeMeta


def pytest_coopcloud_recipe_meta(recipe):
    sandbox = recipe.subdomain("sandbox")
    return RecipeMeta(
        health_path="/",
        extra_env={"SANDBOX_DOMAIN": sandbox},
        extra_domains=[sandbox],
        checks=[Check(path="/", title="CryptPad"), Check(path="/api/config", contains="httpUnsafeOrigin")],
    )
