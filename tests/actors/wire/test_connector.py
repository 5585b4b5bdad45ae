import datetime as dt
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from actors.wire.connector import Connector, system_tls_context
from actors.wire.unary import JsonWire
from actors.wire.url import Origin
from protocol.errors import ProviderError
from tests.actors.wire.peer import Link, Request, answering, peer

BODY = b"{}"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a self-signed certificate for loopback, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "loopback.pem"
    unprotected = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, unprotected)
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def server_side(certificate: Path) -> ssl.SSLContext:
    """Return the server's TLS context."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


async def ask(wire: JsonWire, url: str) -> bytes:
    """Open the client, post ``BODY``, close the client, and return the answer."""
    await wire.open()
    try:
        return await wire.post(url, BODY, {})
    finally:
        await wire.close()


async def test_an_encrypted_call(certificate: Path, server_side: ssl.SSLContext) -> None:
    """A trusted certificate is accepted, the host name goes out as SNI, and the TLS context is made once."""
    sni: list[str | None] = []
    made: list[ssl.SSLContext] = []
    server_side.sni_callback = lambda _, name, __: sni.append(name)

    def tls_context() -> ssl.SSLContext:
        made.append(ssl.create_default_context(cafile=str(certificate)))
        return made[-1]

    async with peer(answering, tls=server_side, host="localhost") as server:
        wire = JsonWire(connect_timeout=5, tls_context=tls_context)
        await wire.open()
        for _ in range(2):
            assert await wire.post(server.url, BODY, {}) == b"{}"
            assert await wire.post(server.url.replace("localhost", "127.0.0.1"), BODY, {}) == b"{}"
        await wire.close()
        assert (len(server.links), sni[0], len(made)) == (2, "localhost", 1)


async def test_a_large_encrypted_body(certificate: Path, server_side: ssl.SSLContext) -> None:
    """A body of 4 MiB is sent and received whole over TLS."""
    body = b'"' + b"x" * (4 * 1024 * 1024) + b'"'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"

    async def play(link: Link) -> None:
        request: Request = await link.request()
        await link.send(head % len(request.body) + request.body)
        await link.left()

    async with peer(play, tls=server_side) as server:
        wire = JsonWire(connect_timeout=5, tls_context=lambda: ssl.create_default_context(cafile=str(certificate)))
        await wire.open()
        assert await wire.post(server.url, body, {}) == body
        await wire.close()


async def test_a_certificate_that_is_not_trusted(server_side: ssl.SSLContext) -> None:
    """A certificate that is not trusted is ``provider_unavailable``."""
    async with peer(answering, tls=server_side) as server:
        with pytest.raises(ProviderError) as caught:
            await ask(JsonWire(connect_timeout=5), server.url)
        assert caught.value.code == "provider_unavailable"


async def test_a_certificate_of_somebody_else(certificate: Path, server_side: ssl.SSLContext) -> None:
    """A trusted certificate for another host is ``provider_unavailable``."""
    async with peer(answering, tls=server_side, host="127.0.0.2") as server:
        wire = JsonWire(connect_timeout=5, tls_context=lambda: ssl.create_default_context(cafile=str(certificate)))
        with pytest.raises(ProviderError) as caught:
            await ask(wire, server.url)
        assert caught.value.code == "provider_unavailable"


async def test_a_handshake_that_never_ends_is_too_slow() -> None:
    """The connect timeout includes the TLS handshake, and closes the connection."""

    async def play(link: Link) -> None:
        await link.left()

    async with peer(play) as server:
        wire = JsonWire(connect_timeout=0.05)
        with pytest.raises(ProviderError) as caught:
            await ask(wire, server.url.replace("http:", "https:"))
        assert caught.value.code == "provider_timeout"
        await server.until(lambda: not server.open)


async def test_ipv6() -> None:
    """An IPv6 address in brackets is a host."""
    async with peer(answering, host="::1") as server:
        url = f"http://[::1]:{server.origin.port}/v1"
        assert await ask(JsonWire(connect_timeout=5), url) == b"{}"


async def test_a_name_with_addresses_of_which_one_answers() -> None:
    """The next address is tried where one does not answer."""
    async with peer(answering) as server:
        port = server.origin.port
        connector = Connector()
        found = [(2, 1, 6, "", ("127.0.0.3", port)), (2, 1, 6, "", ("127.0.0.1", port))]

        class Several:
            async def addresses(self, host: str, port: int) -> list[object]:
                return [*found]

            def forget(self, host: str, port: int) -> None:
                raise AssertionError

        connector._dns = Several()  # type: ignore[assignment]
        connection = await connector.connect(Origin("h", port, tls=False), lambda _: None)
        assert connection.open
        connection.close()
        await server.until(lambda: not server.open)


def test_what_this_machine_trusts() -> None:
    """The system's context checks certificates and host names."""
    context = system_tls_context()
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
