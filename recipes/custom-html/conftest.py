"""custom-html: nginx and a volume of pages."""

from pytest_coopcloud import Check, RecipeMeta

PAGE = "/usr/share/nginx/html/trial.html"


def pytest_coopcloud_recipe_meta(recipe):
    return RecipeMeta(health_path="/", checks=[Check(path="/", contains="<html")])


def pytest_coopcloud_plant(recipe, app):
    app.docker.put_file(app.container("app"), PAGE, f"<html><title>{recipe.run_id}</title></html>".encode())
    return recipe.run_id


def pytest_coopcloud_verify(recipe, app, planted):
    assert planted in app.http.get(app.url + "trial.html").text, "the page of before is gone"
