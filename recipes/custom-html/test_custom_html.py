"""What can be asked of custom-html only."""


def test_unknown_page_is_not_found(http):
    assert http.get("/no-such-page-here").status_code == 404
