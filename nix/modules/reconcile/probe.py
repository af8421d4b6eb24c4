"""Ask a service the way its users do: through the proxy, by name, and look at the certificate."""

from __future__ import annotations

import hashlib
import http.client
import re
import socket
import ssl
import time
from pathlib import Path
from urllib.parse import urlsplit

from .engine import Events
from .errors import NotConvergedError, SettingError

__all__ = ["ask", "leaf_of", "wait_answers"]

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.S)
# A proxy reads its new routes a moment after the task runs, which makes no event: ask again this often, in seconds.
ASK_AGAIN = 0.5


def leaf_of(certificate: Path) -> bytes:
    """Return the first certificate of a PEM file, in DER form.

    Raises:
        SettingError: There is none.
    """
    match = _CERTIFICATE.search(certificate.read_text(encoding="ascii"))
    if match is None:
        raise SettingError(f"{certificate} holds no certificate", hint="see docs/secrets.md, `certificate`")
    return ssl.PEM_cert_to_DER_cert(match[0])


def ask(url: str, address: str, certificate: Path | None) -> str:
    """Return what is wrong with the answer of `url`, asked at `address`; empty where it is well.

    With `certificate` (PEM), that very certificate must be served. The proxy's own 404 and any 5xx are no answers.
    `tls://name` is well as soon as the certificate is.
    """
    target = urlsplit(url)
    host, _, port = address.rpartition(":")
    name = target.hostname or ""
    try:
        stream: socket.socket = socket.create_connection((host, int(port)), timeout=5)
        with stream:
            if target.scheme in ("https", "tls"):
                # Which certificate must be served is known, byte for byte: there is nothing else to verify.
                context = ssl.create_default_context()
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
                stream = context.wrap_socket(stream, server_hostname=name)
                served = stream.getpeercert(binary_form=True) or b""
                if certificate is not None and served != leaf_of(certificate):
                    seen = hashlib.sha256(served).hexdigest()[:16]
                    return f"{url} is served with another certificate (sha256 {seen}…) than {certificate}"
            if target.scheme == "tls":
                return ""
            connection = http.client.HTTPConnection(name)
            connection.sock = stream
            connection.request("GET", target.path or "/", headers={"Host": name})
            status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"{url} at {address}: {error}"
    if status >= 500 or status == 404:
        return f"{url} at {address} answers {status}"
    return ""


def wait_answers(url: str, address: str, certificate: Path | None, *, timeout: float) -> None:
    """Wait until `url` answers well.

    Raises:
        NotConvergedError: `timeout` seconds have passed; the message holds the last answer.
    """
    deadline = time.monotonic() + timeout
    with Events() as events:
        while True:
            wrong = ask(url, address, certificate)
            if not wrong:
                return
            left = deadline - time.monotonic()
            if left <= 0:
                raise NotConvergedError(f"no good answer within {timeout:.0f} s: {wrong}")
            events.wait(min(ASK_AGAIN, left))
