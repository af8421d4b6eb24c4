"""What the trial of this recipe must know: an entry is signed by each run, and has to be there afterwards."""

from pytest_coopcloud import Check, RecipeMeta


def pytest_coopcloud_recipe_meta(recipe):
    return RecipeMeta(health_path="/health", checks=[Check(path="/", title="Guestbook", contains="Sign")])


def pytest_coopcloud_plant(recipe, app):
    entry = {"author": "trial", "message": f"planted by {recipe.run_id}"}
    app.http.post(app.url + "entries", json=entry, timeout=30).raise_for_status()
    app.http.put(app.url + "uploads/trial.txt", data=recipe.run_id, timeout=30).raise_for_status()
    return entry


def pytest_coopcloud_verify(recipe, app, planted):
    entries = app.http.get(app.url + "entries.json", timeout=30).json()
    assert planted in [{key: entry[key] for key in planted} for entry in entries], f"the entry {planted} is gone"
    assert app.http.get(app.url + "uploads/trial.txt", timeout=30).text == recipe.run_id, "the upload is gone"
