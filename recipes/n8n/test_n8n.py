"""What can be asked of n8n only."""


def test_health_is_ok(http):
    assert http.get("/healthz").json() == {"status": "ok"}
