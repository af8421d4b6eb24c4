"""What can be asked of hedgedoc only."""


def test_status_counts_notes(http):
    assert "distinctOnlineUsers" in http.get("/status").json()


def test_front_page_in_a_browser(page):
    page.goto("/")

    assert "HedgeDoc" in page.title()
