"""keycloak: sign-in for other apps, kept in a database."""

from pytest_coopcloud import Check, RecipeMeta


def pytest_coopcloud_recipe_meta(recipe):
    return RecipeMeta(
        health_path="/realms/master",
        health_timeout=180,
        checks=[Check(path="/realms/master/.well-known/openid-configuration", contains="token_endpoint")],
    )
