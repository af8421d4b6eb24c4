"""What can be asked of a guestbook only."""


def test_an_entry_that_is_signed_is_listed(http):
    http.post("/entries", json={"author": "Ada", "message": "was here"}).raise_for_status()

    assert "was here" in [entry["message"] for entry in http.get("/entries.json").json()]


def test_markup_in_an_entry_is_shown_as_text(http):
    http.post("/entries", json={"author": "Eve", "message": "<script>alert(1)</script>"}).raise_for_status()

    assert "<script>alert(1)</script>" not in http.get("/").text


def test_database_is_of_the_version_that_the_recipe_names(app):
    assert "15." in app.exec("db", ["postgres", "--version"]).output
