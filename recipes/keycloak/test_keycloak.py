"""What can be asked of keycloak only."""


def test_issuer_is_the_apps_own_address(http, app):
    found = http.get("/realms/master/.well-known/openid-configuration").json()

    assert found["issuer"].startswith(app.url)


def test_sign_in_form_in_a_browser(page):
    page.goto("/admin/master/console/")

    page.wait_for_selector("#kc-form-login, #username")
