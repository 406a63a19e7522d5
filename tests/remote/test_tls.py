"""``fetch`` over TLS."""

import datetime
import io
import socket
import ssl

import pytest

from kinto_attachment.errors import RemoteFailed, RemoteTimeout
from kinto_attachment.remote import Origin, fetch
from tests.support.fetches import CONTENT, Stopwatch, refused
from tests.support.servers.web import WebServer, drips, overlong, redirects, says, truncated


def authority(tmp_path, name):
    """Make a certificate authority; return its file, and the TLS context of a server with a
    certificate for that name."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    now = datetime.datetime.now(datetime.timezone.utc)

    def issue(common_name, key, issuer, issuer_key, *extensions):
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(issuer_key, hashes.SHA256())

    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    ca = issue(
        "Tests",
        ca_key,
        None,
        ca_key,
        (x509.BasicConstraints(True, 0), True),
        (usage, True),
        (x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), False),
    )
    names = x509.SubjectAlternativeName([x509.DNSName(name)])
    certificate = issue(
        name,
        key,
        ca.subject,
        ca_key,
        (names, False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False),
    )
    pem = serialization.Encoding.PEM
    ca_file, chain = tmp_path / "ca.pem", tmp_path / "server.pem"
    ca_file.write_bytes(ca.public_bytes(pem))
    chain.write_bytes(
        certificate.public_bytes(pem)
        + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return ca_file, context


@pytest.fixture
def secure(tmp_path, resolver, monkeypatch):
    """A server with a certificate for photos.example; every name leads to it. ``names`` are the
    host names that clients asked for in their handshakes."""
    ca_file, context = authority(tmp_path, "photos.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    resolver.answers = [["127.0.0.1"]]
    names = []
    context.sni_callback = lambda sock, name, context: names.append(name)
    with WebServer(says(200, CONTENT), context) as server:
        server.names = names
        yield server


def fetch_of(server, host, **options):
    url = f"https://{host}:{server.port}/a.jpg"
    file = io.BytesIO()
    options = {"max_size": 0, "timeout": 5, "deadline": 5, **options}
    fetch(url, file, allowed=frozenset({Origin.of(url)}), **options)
    return file.getvalue()


def test_the_certificate_is_that_of_the_host(secure):
    assert fetch_of(secure, "photos.example") == CONTENT
    assert secure.names == ["photos.example"]
    assert secure.requests[0].headers["Host"] == f"photos.example:{secure.port}"


@pytest.mark.parametrize("host", ["other.example", "photos.example.org", "127.0.0.1"])
def test_a_certificate_of_another_host_is_refused(secure, host):
    with pytest.raises(RemoteFailed, match="certificate verify failed"):
        fetch_of(secure, host)
    assert secure.requests == []


def test_a_certificate_of_an_unknown_authority_is_refused(secure, monkeypatch, tmp_path):
    (tmp_path / "other").mkdir()
    other, _ = authority(tmp_path / "other", "photos.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    with pytest.raises(RemoteFailed, match="certificate verify failed"):
        fetch_of(secure, "photos.example")
    assert secure.requests == []


def test_a_server_without_tls_is_refused(web, resolver):
    resolver.answers = [["127.0.0.1"]]
    with pytest.raises(RemoteFailed):
        fetch_of(web, "photos.example")


def test_a_silent_handshake_ends_at_the_deadline(resolver):
    resolver.answers = [["127.0.0.1"]]
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"https://photos.example:{server.getsockname()[1]}/"
        with Stopwatch() as watch, pytest.raises(RemoteTimeout):
            fetch(
                url,
                io.BytesIO(),
                max_size=0,
                timeout=5,
                deadline=0.3,
                allowed=frozenset({Origin.of(url)}),
            )
    assert 0.3 <= watch.seconds < 3


def test_a_dripping_response_ends_at_the_deadline(secure):
    secure.answer = drips(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", 0.05)
    with Stopwatch() as watch, pytest.raises(RemoteTimeout):
        fetch_of(secure, "photos.example", deadline=0.5)
    assert watch.seconds < 3


@pytest.mark.parametrize("lie", [truncated(CONTENT), overlong(CONTENT)])
def test_a_wrong_length_is_refused(secure, lie):
    secure.answer = lie
    with pytest.raises(RemoteFailed, match="did not send"):
        fetch_of(secure, "photos.example")


def test_a_redirect_to_http_is_refused(secure, web):
    secure.answer = redirects(web.url)
    url = f"https://photos.example:{secure.port}/"
    allowed = frozenset({Origin.of(url), Origin.of(web.url)})
    assert "redirected from https to http" in refused(url, allowed)
    assert web.requests == []


def test_a_redirect_to_https_is_followed(secure, web):
    web.answer = redirects(f"https://photos.example:{secure.port}/")
    allowed = frozenset({Origin.of(f"https://photos.example:{secure.port}/"), Origin.of(web.url)})
    fetch(web.url, io.BytesIO(), max_size=0, timeout=5, deadline=5, allowed=allowed)
    assert len(secure.requests) == 1
