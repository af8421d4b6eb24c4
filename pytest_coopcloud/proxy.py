"""How a test reaches an app: through Traefik, at `https://<domain>`, with TLS verified and no DNS.

A swarm that has a Traefik on the network `proxy` is taken as it is. Where there is none, one of our own is started, with a
throw-away CA and a wildcard certificate, on a free port of the loopback address; runs at the same time share it, and the
last one takes it down.

`Gateway` says where every name leads; `session()` makes a `requests` session of it, `chromium_arguments()` the same for a
browser.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import ssl
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import requests.adapters
import urllib3
import urllib3.connection
import urllib3.util.connection
from docker.errors import APIError

from pytest_coopcloud.docker import Docker
from pytest_coopcloud.errors import BadInputError, EngineError
from pytest_coopcloud.inventory import PROXY_LABEL, state_label
from pytest_coopcloud.ledger import Lock
from pytest_coopcloud.results import CauseClass
from pytest_coopcloud.tools import tool_image

__all__ = [
    "PROXY_NETWORK",
    "Gateway",
    "Proxy",
    "borrow_proxy",
    "is_proxy_answer",
    "parse_gateway",
    "release_proxy",
    "session",
]

#: The network that every web recipe names as external.
PROXY_NETWORK = "proxy"
#: With the name of the state directory: runs of another one have a proxy, and a CA, of their own.
CONTAINER = "coopcloud-ci-proxy-{}"
START_TIMEOUT = 30.0
#: Seconds to try again when the network is just being let go.
JOIN_TIMEOUT = 15.0


@dataclass(frozen=True)
class Gateway:
    """Where the names of apps lead.

    Attributes:
        host: An address.
        port: Its port that speaks TLS.
        ca: A CA to trust beside the system's; None where the system's are enough.
    """

    host: str
    port: int
    ca: Path | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Proxy:
    """A Traefik to reach apps through.

    Attributes:
        gateway: Where it listens.
        ours: Whether it was started by us, and goes with the last run that uses it.
        title: What it is, for people.
    """

    gateway: Gateway
    ours: bool
    title: str


def parse_gateway(text: str, ca: Path | None = None) -> Gateway:
    """Read the value of `--gateway`: `host:port`, or a host alone for port 443.

    Raises:
        BadInputError: It is neither.
    """
    try:
        parts = urlsplit(f"//{text}")
        if not parts.hostname or parts.path or parts.username:
            raise ValueError(text)
        return Gateway(parts.hostname, parts.port or 443, ca)
    except ValueError as error:
        raise BadInputError(
            f"{text[:80]!r} is no gateway", hint="give `--gateway=host:port`, for example 127.0.0.1:8443"
        ) from error


# HTTP


def session(gateway: Gateway) -> requests.Session:
    """Make a `requests` session in which every `https` name leads to the gateway. The certificate must fit the name.

    Example:
        >>> session(Gateway("127.0.0.1", 8443)).get("https://hell-0a1b2c.ci.localhost/")   # doctest: +SKIP
    """
    made = requests.Session()
    made.trust_env = False  # no proxy of the user's between us and the app
    made.mount("https://", _GatewayAdapter(gateway))
    return made


class _GatewayAdapter(requests.adapters.HTTPAdapter):
    """Connects to the gateway, whatever the name; the name stays in SNI, in the certificate check and in `Host`."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        gateway = self._gateway

        class Connection(urllib3.connection.HTTPSConnection):
            def _new_conn(self) -> Any:
                try:
                    return urllib3.util.connection.create_connection((gateway.host, gateway.port), self.timeout)
                except OSError as error:
                    raise urllib3.exceptions.NewConnectionError(self, f"gateway {gateway}: {error}") from error

        class Pool(urllib3.HTTPSConnectionPool):
            ConnectionCls = Connection

        context = ssl.create_default_context()
        if gateway.ca is not None:
            context.load_verify_locations(gateway.ca)
        super().init_poolmanager(*args, ssl_context=context, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": urllib3.HTTPConnectionPool, "https": Pool}

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:  # noqa: ARG002 - as requests calls it
        # The context above already says whom to trust; requests would load its own bundle over it.
        conn.cert_reqs = "CERT_REQUIRED"

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        host, pool = super().build_connection_pool_key_attributes(request, verify, cert)
        pool.pop("ca_certs", None)
        pool.pop("ca_cert_dir", None)
        return host, pool


def is_proxy_answer(response: requests.Response) -> str:
    """Say which answer of the proxy itself this is, and not of an app; empty where it may be an app's.

    Traefik answers a name that no router takes with a plain 404, and an app that it cannot reach with 502, 503 or 504.
    """
    if response.status_code == 404 and response.text.strip() == "404 page not found":
        return "the proxy knows no router for this name (404 page not found)"
    plain = {502: "Bad Gateway", 503: "no available server", 504: "Gateway Timeout"}
    if response.status_code in plain and response.text.strip().lower() == plain[response.status_code].lower():
        return f"the proxy cannot reach the app ({response.status_code} {response.text.strip()})"
    return ""


def chromium_arguments(gateway: Gateway, base_domain: str) -> list[str]:
    """Return the arguments with which Chromium finds and trusts what is behind the gateway."""
    found = [f"--host-resolver-rules=MAP *.{base_domain}:443 {gateway}, MAP *.{base_domain} {gateway.host}"]
    if gateway.ca is not None:
        found.append(f"--ignore-certificate-errors-spki-list={_spki(gateway.ca.with_name('server.pem'))}")
    return found


def _spki(certificate: Path) -> str:
    """Return the hash of a certificate's public key, as Chromium wants it."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
    key = parsed.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(key).digest()).decode()


# Which Traefik


def borrow_proxy(docker: Docker, base_domain: str, state: Path, users: Lock, *, image: str = "") -> Proxy:
    """Find the swarm's Traefik, or start one of our own.

    Args:
        docker: The engine.
        base_domain: What the wildcard certificate of our own is for.
        state: Where our own keeps its certificate.
        users: The lock that every run shares while it uses our own; taken here where ours is used.
        image: The Traefik image to use for our own; found by itself where empty.

    Raises:
        BadInputError: The network `proxy` is there and cannot be joined.
        EngineError: Ours did not start; with its log.
    """
    found = _swarm_traefik(docker)
    if found is not None:
        return found
    users.shared()
    with Lock(state / "start.lock") as starting:
        starting.exclusive()
        _ensure_network(docker)
        certificate = _ensure_certificate(state, base_domain)
        name = _container(state)
        port = _running_port(docker, name, base_domain)
        if port is None:
            docker.remove("container", name)
            port = _start(docker, name, base_domain, certificate, tool_image(docker, "traefik", image))
    return Proxy(Gateway("127.0.0.1", port, certificate / "ca.pem"), ours=True, title=f"our own Traefik ({name})")


def _container(state: Path) -> str:
    return CONTAINER.format(state_label(state.parent))


def release_proxy(docker: Docker, users: Lock) -> bool:
    """Give up our use of our own proxy; the last one takes it down. True when it is gone, or never was there."""
    if not users.try_exclusive():
        return False
    try:
        docker.remove("container", _container(users.path.parent))
        for network in docker.networks(label=PROXY_LABEL):
            until = time.monotonic() + 10
            while not docker.remove("network", network["Id"]) and time.monotonic() < until:
                time.sleep(0.05)  # an endpoint is let go a moment after its container; there is no event for it
    finally:
        users.release()
    return True


def _swarm_traefik(docker: Docker) -> Proxy | None:
    """Return the Traefik service that is on the network `proxy`, if there is one."""
    networks = {raw["Id"] for raw in docker.networks(name=PROXY_NETWORK) if raw["Name"] == PROXY_NETWORK}
    for service in docker.services():
        template = service["Spec"]["TaskTemplate"]
        image = str((template.get("ContainerSpec") or {}).get("Image", "")).partition("@")[0]
        joined = {network["Target"] for network in template.get("Networks") or []}
        if "traefik" not in image.rpartition("/")[2] or not joined & (networks | {PROXY_NETWORK}):
            continue
        for port in (service.get("Endpoint") or {}).get("Ports") or (
            (service["Spec"].get("EndpointSpec") or {}).get("Ports") or []
        ):
            if port.get("TargetPort") == 443 and port.get("PublishedPort"):
                host = urlsplit(docker.host or "").hostname or "127.0.0.1"
                name = service["Spec"]["Name"]
                return Proxy(
                    Gateway(host, int(port["PublishedPort"])), ours=False, title=f"the swarm's Traefik ({name})"
                )
    return None


def _ensure_network(docker: Docker) -> None:
    for network in docker.networks(name=PROXY_NETWORK):
        if network["Name"] == PROXY_NETWORK:
            if not network.get("Attachable"):
                raise BadInputError(
                    f"the network `{PROXY_NETWORK}` is there, no Traefik is on it, and it is not attachable",
                    hint="deploy the traefik recipe, or make it again with "
                    f"`docker network create -d overlay --attachable {PROXY_NETWORK}`",
                    cause=CauseClass.INFRASTRUCTURE,
                )
            return
    docker.create_network(PROXY_NETWORK, {PROXY_LABEL: "network"})


def _ensure_certificate(state: Path, base_domain: str) -> Path:
    """Return the folder with `ca.pem`, `server.pem` and `key.pem` for a base domain, made where it is missing or old."""
    import trustme

    folder = state / base_domain
    if (folder / "key.pem").exists() and time.time() - (folder / "key.pem").stat().st_mtime < 30 * 86400:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA(organization_name="pytest-coopcloud, throw-away")
    issued = authority.issue_cert(f"*.{base_domain}", base_domain)
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    (folder / "server.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key = folder / "key.pem"
    key.touch(mode=0o600)
    key.write_bytes(issued.private_key_pem.bytes())
    return folder


def _running_port(docker: Docker, name: str, base_domain: str) -> int | None:
    for container in docker.containers(label=f"{PROXY_LABEL}={base_domain}", status="running", name=f"^/?{name}$"):
        for port in container.get("Ports") or []:
            if port.get("PrivatePort") == 443 and port.get("PublicPort"):
                return int(port["PublicPort"])
    return None


_ARGUMENTS = (
    "--entryPoints.web.address=:80",
    "--entryPoints.web-secure.address=:443",
    "--providers.swarm=true",
    "--providers.swarm.exposedByDefault=false",
    f"--providers.swarm.network={PROXY_NETWORK}",
    # Every 15 s by default: a trial would mostly wait for that.
    "--providers.swarm.refreshSeconds=1",
    # Traefik gathers changes for 2 s by default.
    "--providers.providersThrottleDuration=100ms",
    "--providers.file.filename=/coopcloud/dynamic.yml",
    "--global.checkNewVersion=false",
    "--global.sendAnonymousUsage=false",
)


def _start(docker: Docker, name: str, base_domain: str, certificate: Path, image: str) -> int:
    """Start our own Traefik, and return its port.

    A node lets go of an overlay when the last container on it ends; one that joins at that very moment is told "network not
    found" (seen on Docker 20.10), and finds it a moment later.
    """
    deadline = time.monotonic() + JOIN_TIMEOUT
    while True:
        try:
            return _start_once(docker, name, base_domain, certificate, image)
        except APIError as error:
            docker.remove("container", name)
            if "network" not in str(error).lower() or time.monotonic() > deadline:
                raise EngineError(f"our own Traefik cannot be started from image {image}: {error}") from error
            time.sleep(0.2)


def _start_once(docker: Docker, name: str, base_domain: str, certificate: Path, image: str) -> int:
    api = docker.api
    made = api.create_container(
        image,
        command=list(_ARGUMENTS),
        name=name,
        labels={PROXY_LABEL: base_domain},
        ports=[443],
        host_config=api.create_host_config(
            binds={"/var/run/docker.sock": {"bind": "/var/run/docker.sock", "mode": "ro"}},
            port_bindings={443: ("127.0.0.1", None)},
            restart_policy={"Name": "no"},
        ),
        networking_config=api.create_networking_config({PROXY_NETWORK: api.create_endpoint_config()}),
    )
    dynamic = {
        "tls": {
            "stores": {
                "default": {
                    "defaultCertificate": {"certFile": "/coopcloud/server.pem", "keyFile": "/coopcloud/key.pem"}
                }
            }
        }
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        files = {
            "server.pem": (certificate / "server.pem").read_bytes(),
            "key.pem": (certificate / "key.pem").read_bytes(),
        }
        for file, content in {**files, "dynamic.yml": json.dumps(dynamic).encode()}.items():
            member = tarfile.TarInfo(f"coopcloud/{file}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    api.put_archive(made["Id"], "/", packed.getvalue())
    api.start(made["Id"])
    port = _running_port(docker, name, base_domain)
    if port is None:
        log = docker.logs(made["Id"], tail=20)
        docker.remove("container", name)
        raise EngineError(f"our own Traefik did not start from image {image}:\n{log}")
    return port


def wait_for_proxy(gateway: Gateway, domain: str, *, timeout: float = START_TIMEOUT) -> requests.Response:
    """Wait until the proxy answers for a name at all, and return its answer.

    Raises:
        EngineError: It did not within `timeout` seconds; with the last error.
    """
    deadline = time.monotonic() + timeout
    with session(gateway) as http:
        while True:
            try:
                return http.get(f"https://{domain}/", timeout=5, allow_redirects=False)
            except requests.RequestException as error:
                if time.monotonic() > deadline:
                    raise EngineError(
                        f"the proxy at {gateway} did not answer for {domain} in {timeout:g} s: {error}",
                        hint="give its address with `--gateway=host:port`; its certificate must fit the name",
                    ) from error
                time.sleep(0.05)  # a port that is not listened to yet has no event either
