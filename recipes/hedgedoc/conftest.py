"""hedgedoc: notes in Markdown, kept in PostgreSQL."""

from pytest_coopcloud import Check, RecipeMeta


def pytest_coopcloud_recipe_meta(recipe):
    return RecipeMeta(
        health_path="/status",
        extra_env={"CMD_ALLOW_ANONYMOUS": "true", "CMD_ALLOW_FREEURL": "true"},
        checks=[Check(path="/", title="HedgeDoc")],
    )


def pytest_coopcloud_plant(recipe, app):
    answer = app.http.post(
        app.url + "new", data=f"# planted by {recipe.run_id}\n", headers={"Content-Type": "text/markdown"}, timeout=30
    )
    answer.raise_for_status()
    return answer.url.rstrip("#?both")


def pytest_coopcloud_verify(recipe, app, planted):
    answer = app.http.get(planted + "/download", timeout=30)
    assert recipe.run_id in answer.text, f"the note {planted} of before is gone ({answer.status_code})"
