"""What is fetched, and what is not: whatever a URL says, nobody is led where only we may go."""

import datetime
import hashlib
import io
import socket
import ssl
import time
import tracemalloc
from email.message import Message
from email.utils import format_datetime
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinto_attachment import remote
from kinto_attachment.errors import (
    RemoteFailed,
    RemoteLimited,
    RemoteNotFound,
    RemoteTimeout,
    StorageUnavailable,
    TooLarge,
)
from kinto_attachment.remote import Origin, connection, fetch, get_json, is_public, retry_after
from tests.support.servers import free_port
from tests.support.servers.unsplash import (
    Web,
    drips,
    endless,
    gzipped,
    overlong,
    redirects,
    says,
    silent,
    truncated,
)

CONTENT = b"\xff\xd8" + bytes(range(256)) * 100
PUBLIC = "93.184.215.14"


@pytest.fixture
def web():
    with Web(says(200, CONTENT, Content_Type="image/jpeg; charset=x")) as server:
        yield server


@pytest.fixture
def elsewhere():
    """Another server of this machine, which nobody is allowed to ask."""
    with Web() as server:
        yield server


def fetched(web, path="/a.jpg", *, max_size=0, timeout=5, deadline=10, mimetype=""):
    """What is fetched from a server that may be asked, and the bytes."""
    file = io.BytesIO()
    result = fetch(
        web.url + path,
        file,
        max_size=max_size,
        timeout=timeout,
        deadline=deadline,
        mimetype=mimetype,
        allowed=frozenset({Origin.of(web.url)}),
    )
    return result, file.getvalue()


def refused(url, allowed=frozenset()):
    with pytest.raises(RemoteFailed) as info:
        fetch(url, io.BytesIO(), max_size=0, timeout=1, deadline=2, allowed=allowed)
    return str(info.value)


class Seconds:
    """How long it took."""

    def __enter__(self):
        self._began = time.monotonic()
        return self

    def __exit__(self, *exc_info):
        self.taken = time.monotonic() - self._began


@pytest.fixture
def resolver(monkeypatch):
    """Answers of the name server, one after the other; the last one for ever. ``asked`` are the
    names that were looked up."""

    class Resolver:
        asked: list[str] = []
        answers: list[list[str]] = []

        def getaddrinfo(self, host, port, *args, **kwargs):
            self.asked.append(host)
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            family = {4: socket.AF_INET, 6: socket.AF_INET6}
            return [
                (
                    family[ip_address(address).version],
                    socket.SOCK_STREAM,
                    6,
                    "",
                    (address, port) if "." in address else (address, port, 0, 0),
                )
                for address in answer
            ]

    resolver = Resolver()
    resolver.asked, resolver.answers = [], []
    monkeypatch.setattr(socket, "getaddrinfo", resolver.getaddrinfo)
    return resolver


@pytest.fixture(autouse=True)
def internet(monkeypatch):
    """Public addresses and the ports of this machine that play them; nobody else is reached."""
    played = {}

    def connect(self, address):
        if address[0] in played:
            address = ("127.0.0.1", played[address[0]])
        assert address[0] in ("127.0.0.1", "::1"), f"a test wants to connect to {address}"
        socket.socket.connect(self, address)

    monkeypatch.setattr(connection._Socket, "connect", connect, raising=False)
    return played


@pytest.fixture
def connected(internet, monkeypatch):
    """The addresses that were connected to; nobody answers there."""
    addresses = []

    def connect(self, address):
        addresses.append(address[0])
        raise ConnectionRefusedError("nobody")

    monkeypatch.setattr(connection._Socket, "connect", connect, raising=False)
    return addresses


# What comes.


def test_the_bytes_and_what_is_known_of_them(web):
    result, content = fetched(web)
    assert content == CONTENT
    assert result.digest.size == len(CONTENT)
    assert result.digest.hexdigest() == hashlib.sha256(CONTENT).hexdigest()
    assert result.mimetype == "image/jpeg"
    assert result.url == web.url + "/a.jpg"


def test_the_request(web):
    fetched(web, "/a.jpg?b=c&d#e", mimetype="image/")
    (request,) = web.requests
    assert request.path == "/a.jpg?b=c&d"
    assert request.headers["Host"] == f"127.0.0.1:{web.port}"
    assert request.headers["Accept-Encoding"] == "identity"
    assert request.headers["Accept"] == "image/*"
    assert request.headers["Connection"] == "close"
    assert len(request.headers.get_all("Host")) == 1


def test_no_path_is_the_root(web):
    fetched(web, "")
    fetched(web, "?q")
    assert [request.path for request in web.requests] == ["/", "/?q"]


def test_no_type_is_an_empty_one(web):
    web.answer = says(200, CONTENT)
    assert fetched(web)[0].mimetype == ""


def test_chunks(web):
    def answer(handler):
        handler.send(200, Content_Length=None, Transfer_Encoding="chunked")
        for start in range(0, len(CONTENT), 1000):
            chunk = CONTENT[start : start + 1000]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        handler.wfile.write(b"0\r\n\r\n")

    web.answer = answer
    assert fetched(web)[1] == CONTENT


def test_chunks_that_end_too_early(web):
    def answer(handler):
        handler.send(200, Content_Length=None, Transfer_Encoding="chunked")
        handler.wfile.write(b"5\r\nhello\r\n")

    web.answer = answer
    with pytest.raises(RemoteFailed):
        fetched(web)


def test_no_bytes_are_bytes_too(web):
    web.answer = says(200)
    assert fetched(web)[0].digest.size == 0


def test_memory_is_constant(web):
    block, blocks = b"\xa5" * 2**20, 200

    def answer(handler):
        handler.send(200, Content_Length=len(block) * blocks)
        for _ in range(blocks):
            handler.wfile.write(block)

    class Counter(io.RawIOBase):
        size = 0

        def write(self, chunk):
            self.size += len(chunk)
            return len(chunk)

    web.answer = answer
    counter = Counter()
    tracemalloc.start()
    try:
        result = fetch(
            web.url,
            counter,
            max_size=0,
            timeout=5,
            deadline=60,
            allowed=frozenset({Origin.of(web.url)}),
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result.digest.size == counter.size == len(block) * blocks
    assert peak < 3 * 2**20


def test_a_full_disk_is_no_fault_of_the_server(web):
    class Full(io.RawIOBase):
        def write(self, chunk):
            raise OSError(28, "No space left on device")

    with pytest.raises(StorageUnavailable):
        fetch(
            web.url,
            Full(),
            max_size=0,
            timeout=5,
            deadline=5,
            allowed=frozenset({Origin.of(web.url)}),
        )


def test_proxies_of_the_environment_are_not_used(web, elsewhere, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, elsewhere.url)
    assert fetched(web)[1] == CONTENT
    assert elsewhere.requests == []


# How much.


def test_the_limit_is_allowed(web):
    assert fetched(web, max_size=len(CONTENT))[1] == CONTENT


def test_too_large_as_declared(web):
    def answer(handler):
        handler.send(200, Content_Length=10**12)
        silent(handler)

    web.answer = answer
    with Seconds() as seconds, pytest.raises(TooLarge) as info:
        fetched(web, max_size=1000)
    assert (info.value.size, info.value.limit) == (10**12, 1000)
    assert seconds.taken < 3


def test_too_large_as_counted(web):
    web.answer = endless()
    file = io.BytesIO()
    with pytest.raises(TooLarge):
        fetch(
            web.url,
            file,
            max_size=10**6,
            timeout=5,
            deadline=10,
            allowed=frozenset({Origin.of(web.url)}),
        )
    assert len(file.getvalue()) <= 10**6


@pytest.mark.parametrize("missing", [1, 10**6])
def test_fewer_bytes_than_declared(web, missing):
    web.answer = truncated(CONTENT, missing)
    with pytest.raises(RemoteFailed, match="does not send"):
        fetched(web)


@pytest.mark.parametrize("more", [1, len(CONTENT) - 1, len(CONTENT)])
def test_more_bytes_than_declared(web, more):
    web.answer = overlong(CONTENT, more)
    with pytest.raises(RemoteFailed, match="does not send"):
        fetched(web)


def test_a_connection_left_open_is_no_lie(web, monkeypatch):
    def answer(handler):
        handler.send(200, CONTENT)
        silent(handler)

    monkeypatch.setattr(connection, "LINGER", 0.1)
    web.answer = answer
    assert fetched(web)[1] == CONTENT


@pytest.mark.parametrize("length", [None, "many", "-1"])
def test_bytes_that_nobody_counted(web, length):
    web.answer = says(200, CONTENT, Content_Length=length)
    with pytest.raises(RemoteFailed, match="how much"):
        fetched(web)


def test_no_encoding_is_decoded(web):
    web.answer = gzipped(bytes(10**6))
    with pytest.raises(RemoteFailed, match="encoding"):
        fetched(web, max_size=10**5)


def test_the_type_is_judged_before_the_bytes(web):
    def answer(handler):
        handler.send(200, Content_Type="text/html", Content_Length=10**6)
        silent(handler)

    web.answer = answer
    with Seconds() as seconds, pytest.raises(RemoteFailed, match="text/html"):
        fetched(web, mimetype="image/")
    assert seconds.taken < 3


# How long.


def test_no_header_in_time(web):
    web.answer = silent
    with Seconds() as seconds, pytest.raises(RemoteTimeout):
        fetched(web, timeout=0.2)
    assert 0.2 <= seconds.taken < 3


def test_silence_amid_the_body(web):
    def answer(handler):
        handler.send(200, b"some", Content_Length=1000)
        silent(handler)

    web.answer = answer
    with Seconds() as seconds, pytest.raises(RemoteTimeout):
        fetched(web, timeout=0.2)
    assert 0.2 <= seconds.taken < 3


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
DRIPS = {
    "body": drips(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", 0.05),
    "status line": drips(b"HTTP/1.1 200 ", 0.05),
    "header": drips(b"HTTP/1.1 200 OK\r\nX: ", 0.05),
    "headers": drips(b"HTTP/1.1 200 OK\r\n", 0.05, b"X: y\r\n"),
    "continues": drips(b"", 0.05, b"HTTP/1.1 100 Continue\r\n\r\n"),
    "chunk": drips(CHUNKED + b"ffff\r\n", 0.05),
    "chunk size": drips(CHUNKED, 0.05, b"0"),
    "chunks": drips(CHUNKED, 0.05, b"1\r\nx\r\n"),
    "trailer": drips(CHUNKED + b"0\r\n", 0.05, b"X: y\r\n"),
    "complaint": drips(b"HTTP/1.1 500 No\r\nContent-Length: 9999\r\n\r\n", 0.05),
}


@pytest.mark.parametrize("what", DRIPS)
def test_what_drips_has_a_deadline(web, what):
    web.answer = DRIPS[what]
    with Seconds() as seconds, pytest.raises(RemoteTimeout):
        if what == "complaint":  # which only an API is listened to
            get_json(web.url, {}, timeout=5, deadline=0.4, allowed=frozenset({Origin.of(web.url)}))
        else:
            fetched(web, timeout=5, deadline=0.4)
    assert 0.4 <= seconds.taken < 3


def test_a_flood_has_a_deadline(web):
    web.answer = endless()
    with Seconds() as seconds, pytest.raises(RemoteTimeout):
        fetched(web, deadline=0.4)
    assert seconds.taken < 3


def test_redirects_share_the_deadline(web):
    def answer(handler):
        handler.web.closing.wait(0.15)
        handler.send(302, Location="/again")

    web.answer = answer
    with pytest.raises(RemoteTimeout):
        fetched(web, deadline=0.4)
    assert len(web.requests) <= 3


def test_nobody_accepts_the_connection(resolver, internet, monkeypatch):
    def connect(self, address):
        time.sleep(self.gettimeout())
        raise TimeoutError("timed out")

    monkeypatch.setattr(connection._Socket, "connect", connect, raising=False)
    resolver.answers = [[PUBLIC] * 50]
    with Seconds() as seconds, pytest.raises(RemoteTimeout):
        fetch("http://photos.example/", io.BytesIO(), max_size=0, timeout=0.1, deadline=0.35)
    assert 0.3 < seconds.taken < 3


# Which answers.


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (404, RemoteNotFound),
        (410, RemoteNotFound),
        (429, RemoteLimited),
        (204, RemoteFailed),
        (206, RemoteFailed),
        (304, RemoteFailed),
        (400, RemoteFailed),
        (401, RemoteFailed),
        (403, RemoteFailed),
        (500, RemoteFailed),
        (503, RemoteFailed),
    ],
)
def test_other_statuses(web, status, error):
    web.answer = says(status, b"no" if status not in (204, 304) else b"")
    with pytest.raises(error) as info:
        fetched(web)
    assert type(info.value) is error


def test_limited_with_and_without_a_time(web):
    web.answer = says(429, Retry_After="17")
    with pytest.raises(RemoteLimited) as info:
        fetched(web)
    assert info.value.retry_after == 17
    web.answer = says(429)
    with pytest.raises(RemoteLimited) as info:
        fetched(web)
    assert info.value.retry_after is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 abc def\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70000,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 101 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello world",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_what_is_not_http(web, raw):
    web.answer = lambda handler: handler.wfile.write(raw)
    with pytest.raises(RemoteFailed):
        fetched(web)


def test_nobody_is_there():
    url = f"http://127.0.0.1:{free_port()}"
    assert "cannot be asked" in refused(url, frozenset({Origin.of(url)}))


def test_a_name_that_nobody_has(monkeypatch):
    def getaddrinfo(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert "Name or service not known" in refused("http://photos.example/")


def seconds_said(text):
    headers = Message()
    headers["Retry-After"] = text
    return retry_after(headers)


def test_retry_after():
    now = datetime.datetime.now(datetime.timezone.utc)
    assert seconds_said("120") == 120
    assert seconds_said(" 0 ") == 0
    assert seconds_said("999999999") == 86400
    later = format_datetime(now + datetime.timedelta(seconds=90), usegmt=True)
    assert 88 <= seconds_said(later) <= 91
    assert seconds_said("Sun, 06 Nov 1994 08:49:37 GMT") == 1
    assert seconds_said("Fri, 31 Dec 9999 23:59:59 GMT") == 86400
    assert retry_after(Message()) is None


@given(st.text(st.characters(codec="ascii", exclude_characters="\r\n")))
def test_retry_after_is_any_text(text):
    seconds = seconds_said(text)
    assert seconds is None or 0 <= seconds <= 86400


# URLs.


@pytest.mark.parametrize(
    "url",
    [
        "",
        "photos.example/a.jpg",
        "//photos.example/a.jpg",
        "file:///etc/passwd",
        "ftp://photos.example/a.jpg",
        "gopher://127.0.0.1:6379/_INFO",
        "data:image/png;base64,AAAA",
        "unix:///var/run/docker.sock",
        "http://",
        "http:///a.jpg",
        "http:photos.example",
        "http://user@photos.example/",
        "http://user:secret@photos.example/",
        "http://@photos.example/",
        "http://photos.example@127.0.0.1/",
        "http://photos.example:port/",
        "http://photos.example:99999/",
        "http://photos.example\\@127.0.0.1/",
        "http://photos.example/\\a",
        "http://photos.example/a b",
        "http://photos.example/a\r\nX-Y: z",
        " http://photos.example/",
        "http://photos.example/é",
        "http://phötos.example/",
        "http://①②⑦.⓪.⓪.①/",
        "http://photos..example/",
        "http://.photos.example/",
        "http://photos.example./",
        "http://-photos.example/",
        "http://" + "a" * 64 + ".example/",
        "http://" + "a." * 127 + "example/",
        "http://photos%2eexample/",
        "http://127.0.0.1./",
        "http://localhost./",
        "http://127.1/",
        "http://127.0.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.0.0.1/",
        "http://0X7F.0.0.1/",
        "http://127.0.0.0x1/",
        "http://0177.0.0.1/",
        "http://127.0.0.01/",
        "http://017700000001/",
        "http://0/",
        "http://photos.1/",
        "http://photos.0x/",
        "http://256.1.1.1/",
        "http://1.2.3.4.5/",
        "http://[::1%25lo]/",
        "http://[fe80::1%25eth0]/",
        "http://[127.0.0.1]/",
        "http://[photos.example]/",
        "http://[::1/",
        "http://::1/",
        "http://[::1]photos.example/",
    ],
)
def test_no_such_url_is_asked_for(url, resolver, connected):
    resolver.answers = [[PUBLIC]]
    refused(url)
    assert resolver.asked == [] and connected == []


@given(st.text(max_size=60))
def test_any_text_is_a_url_or_refused(text):
    for url in (text, f"http://{text}", f"http://{text}/", f"https://photos.example/{text}"):
        try:
            origin = Origin.of(url)
        except RemoteFailed:
            continue
        assert origin.scheme in ("http", "https")
        assert origin.host and origin.host == origin.host.lower()
        assert url.isascii()


def test_a_password_is_named_and_not_repeated():
    told = refused("http://user:secret@photos.example/")
    assert "password" in told and "secret" not in told


def test_origins():
    assert Origin.of("HTTP://Photos.Example/") == Origin("http", "photos.example", 80)
    assert Origin.of("https://photos.example:443/") == Origin.of("https://photos.example")
    assert Origin.of("http://photos.example:0") == Origin("http", "photos.example", 0)
    assert Origin("https", "photos.example", 443).netloc == "photos.example"
    assert Origin("http", "photos.example", 443).netloc == "photos.example:443"
    assert Origin.of("http://[::1]:8080/").netloc == "[::1]:8080"


# Addresses.

# The registries of IANA of special addresses, with those that are not for everybody; and groups.
NOT_GLOBAL = [
    ip_network("0.0.0.0/8"),
    ip_network("10.0.0.0/8"),
    ip_network("100.64.0.0/10"),
    ip_network("127.0.0.0/8"),
    ip_network("169.254.0.0/16"),
    ip_network("172.16.0.0/12"),
    ip_network("192.0.0.0/24"),
    ip_network("192.0.2.0/24"),
    ip_network("192.88.99.0/24"),
    ip_network("192.168.0.0/16"),
    ip_network("198.18.0.0/15"),
    ip_network("198.51.100.0/24"),
    ip_network("203.0.113.0/24"),
    ip_network("224.0.0.0/4"),
    ip_network("240.0.0.0/4"),
    ip_network("255.255.255.255/32"),
    ip_network("::/128"),
    ip_network("::1/128"),
    ip_network("::/96"),
    ip_network("::ffff:0:0/96"),
    ip_network("64:ff9b:1::/48"),
    ip_network("100::/64"),
    ip_network("100:0:0:1::/64"),
    ip_network("2001::/23"),
    ip_network("2001:db8::/32"),
    ip_network("2002::/16"),
    ip_network("3fff::/20"),
    ip_network("5f00::/16"),
    ip_network("fc00::/7"),
    ip_network("fe80::/10"),
    ip_network("fec0::/10"),
    ip_network("ff00::/8"),
]

ADDRESSES = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::7f00:1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2002:7f00:1::1",
    "2002:a9fe:a9fe::",
    "2001:db8::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_that_are_not_public(address, resolver, connected):
    assert not is_public(address)
    resolver.answers = [[address.partition("%")[0]]]
    assert "not on the public Internet" in refused("https://photos.example/")
    assert connected == []


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.1.2.3", "[::1]", "[::ffff:127.0.0.1]", "[::]"]
)
def test_addresses_in_urls(address, connected):
    assert "not on the public Internet" in refused(f"http://{address}/")
    assert connected == []


@pytest.mark.parametrize("address", [PUBLIC, "1.1.1.1", "2606:4700::1111", "64:ff9b::101:101"])
def test_addresses_that_are_public(address, resolver, connected):
    assert is_public(address)
    resolver.answers = [[address]]
    refused("https://photos.example/")
    assert connected == [address]


@given(st.sampled_from(NOT_GLOBAL).flatmap(lambda net: st.ip_addresses(network=net)))
def test_no_special_address_is_public(address):
    assert not is_public(str(address))


@given(st.ip_addresses())
def test_no_address_is_public_that_is_not_global(address):
    if is_public(str(address)):
        embedded = address
        if address in ip_network("64:ff9b::/96"):
            embedded = IPv4Address(int(address) & 0xFFFFFFFF)
        assert embedded.is_global and not embedded.is_multicast
        assert not any(embedded in network for network in NOT_GLOBAL)


@given(st.ip_addresses(v=4))
def test_an_embedded_address_is_no_way_around(address):
    number = int(address)
    forms = [
        number,
        0xFFFF << 32 | number,
        0xFFFF << 48 | number,
        0x2002 << 112 | number << 80,
        0x20010000 << 96 | (number ^ 0xFFFFFFFF),
    ]
    assert not any(is_public(str(IPv6Address(form))) for form in forms)
    assert is_public(str(IPv6Address((0x64FF9B << 96) | number))) == is_public(str(address))


# Look-ups.


def test_every_address_is_judged(resolver, connected):
    for answer in ([PUBLIC, "127.0.0.1"], ["10.0.0.1", PUBLIC], [PUBLIC, "::1"]):
        resolver.answers = [answer]
        assert "not on the public Internet" in refused("http://photos.example/")
    assert connected == []


def test_a_name_is_looked_up_once(resolver, connected):
    """DNS rebinding: public when it is judged, and another address when it is used."""
    resolver.answers = [[PUBLIC], ["127.0.0.1"]]
    refused("http://photos.example/")
    assert resolver.asked == ["photos.example"]
    assert connected == [PUBLIC]


def test_rebinding_does_not_reach_this_machine(resolver, web, elsewhere, internet):
    internet[PUBLIC] = web.port
    resolver.answers = [[PUBLIC], ["127.0.0.1"]]
    url = f"http://photos.example:{elsewhere.port}/a.jpg"
    file = io.BytesIO()
    fetch(url, file, max_size=0, timeout=1, deadline=1)
    assert file.getvalue() == CONTENT
    assert web.requests[0].headers["Host"] == f"photos.example:{elsewhere.port}"
    assert elsewhere.requests == []


def test_the_next_address_where_one_does_not_answer(resolver, connected):
    resolver.answers = [["2606:4700::1111", PUBLIC]]
    refused("http://photos.example/")
    assert connected == ["2606:4700::1111", PUBLIC]


def test_each_redirect_is_looked_up_and_judged(resolver, web, elsewhere):
    url = f"http://photos.example:{web.port}/"
    web.answer = redirects(f"http://inside.example:{elsewhere.port}/")
    resolver.answers = [["127.0.0.1"]]
    assert "not on the public Internet" in refused(url, frozenset({Origin.of(url)}))
    assert resolver.asked == ["photos.example", "inside.example"]
    assert elsewhere.requests == []


def test_only_that_origin_is_allowed(web, elsewhere):
    allowed = frozenset({Origin.of(web.url)})
    refused(elsewhere.url, allowed)
    refused(f"http://localhost:{web.port}/", allowed)
    refused(f"https://127.0.0.1:{web.port}/", allowed)
    assert web.requests == elsewhere.requests == []


# Redirects.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed(web, status):
    def answer(handler):
        if handler.path == "/a.jpg":
            handler.send(status, b"there", Location="b/c.jpg?d")
        else:
            handler.send(200, CONTENT)

    web.answer = answer
    result, content = fetched(web)
    assert content == CONTENT
    assert result.url == web.url + "/b/c.jpg?d"


@pytest.mark.parametrize(("times", "followed"), [(5, True), (6, False)])
def test_so_many_redirects(web, times, followed):
    def answer(handler):
        number = int(handler.path[1:])
        handler.send(*((302, b"") if number < times else (200, CONTENT)), Location=f"/{number + 1}")

    web.answer = answer
    if followed:
        assert fetched(web, "/0")[1] == CONTENT
    else:
        with pytest.raises(RemoteFailed, match="more than 5 times"):
            fetched(web, "/0")
        assert len(web.requests) == 6


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{port}/",
        "//127.0.0.1:{port}/",
        "http://localhost:{port}/",
        "http://[::1]:{port}/",
        "http://2130706433:{port}/",
        "http://127.0.0.1.:{port}/",
        "http://user@127.0.0.1:{port}/",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "file:///etc/passwd",
        "ftp://photos.example/",
        "javascript:alert(1)",
        "http://[",
        "http://\xe9.example/",
        "",
        None,
    ],
)
def test_redirects_that_are_not_followed(web, elsewhere, location):
    web.answer = redirects(location and location.format(port=elsewhere.port))
    with pytest.raises(RemoteFailed):
        fetched(web)
    assert len(web.requests) == 1
    assert elsewhere.requests == []


# JSON.


def asked(web, headers=None, deadline=5):
    allowed = frozenset({Origin.of(web.url)})
    return get_json(web.url, headers or {}, timeout=5, deadline=deadline, allowed=allowed)


def test_json(web):
    web.answer = says(200, b'{"a": [1]}', X_Left="7")
    answer = asked(web, {"Authorization": "Client-ID k"})
    assert answer.json() == {"a": [1]}
    assert (answer.status, answer.headers["X-Left"]) == (200, "7")
    assert web.requests[0].headers["Authorization"] == "Client-ID k"
    assert web.requests[0].headers["Accept"] == "application/json"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b"<html>", b"[" * 100_000, b"9" * 5000 + b"x"]
)
def test_malformed_json(web, body):
    web.answer = says(200, body)
    with pytest.raises(RemoteFailed, match="malformed"):
        asked(web).json()


def test_json_has_a_limit(web):
    web.answer = says(200, b" " * (remote.MAX_JSON - 1) + b"1")
    assert asked(web).json() == 1
    web.answer = says(200, b" " * remote.MAX_JSON + b"1")
    with pytest.raises(RemoteFailed, match="more than"):
        asked(web)
    web.answer = endless(b" " * 65536)
    with pytest.raises(RemoteFailed, match="more than"):
        asked(web)


def test_a_complaint_is_read_in_part(web):
    web.answer = says(500, b"x" * 10**6)
    answer = asked(web)
    assert (answer.status, answer.body) == (500, b"x" * 4096)


def test_an_api_is_not_followed(web, elsewhere):
    web.answer = redirects(elsewhere.url)
    assert asked(web, {"Authorization": "Client-ID k"}).status == 302
    assert elsewhere.requests == []


# TLS.


def authority(tmp_path, name):
    """A certificate authority, its file, and a context of a server with a certificate for a
    name."""
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
    """A server with a certificate for photos.example; names lead to it. ``names`` are those that
    clients asked for when they greeted."""
    ca_file, context = authority(tmp_path, "photos.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    resolver.answers = [["127.0.0.1"]]
    names = []
    context.sni_callback = lambda sock, name, context: names.append(name)
    with Web(says(200, CONTENT), context) as server:
        server.names = names
        yield server


def fetch_of(server, host, **options):
    url = f"https://{host}:{server.port}/a.jpg"
    file = io.BytesIO()
    options = {"max_size": 0, "timeout": 5, "deadline": 5, **options}
    fetch(url, file, allowed=frozenset({Origin.of(url)}), **options)
    return file.getvalue()


def test_tls_is_of_the_name(secure):
    assert fetch_of(secure, "photos.example") == CONTENT
    assert secure.names == ["photos.example"]
    assert secure.requests[0].headers["Host"] == f"photos.example:{secure.port}"


@pytest.mark.parametrize("host", ["other.example", "photos.example.org", "127.0.0.1"])
def test_tls_of_another_name(secure, host):
    with pytest.raises(RemoteFailed, match="certificate verify failed"):
        fetch_of(secure, host)
    assert secure.requests == []


def test_tls_of_an_unknown_authority(secure, monkeypatch, tmp_path):
    (tmp_path / "other").mkdir()
    other, _ = authority(tmp_path / "other", "photos.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    with pytest.raises(RemoteFailed, match="certificate verify failed"):
        fetch_of(secure, "photos.example")
    assert secure.requests == []


def test_tls_with_who_does_not_speak_it(web, resolver):
    resolver.answers = [["127.0.0.1"]]
    with pytest.raises(RemoteFailed):
        fetch_of(web, "photos.example")


def test_tls_greeting_in_silence(resolver):
    resolver.answers = [["127.0.0.1"]]
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"https://photos.example:{server.getsockname()[1]}/"
        with Seconds() as seconds, pytest.raises(RemoteTimeout):
            fetch(
                url,
                io.BytesIO(),
                max_size=0,
                timeout=5,
                deadline=0.3,
                allowed=frozenset({Origin.of(url)}),
            )
    assert 0.3 <= seconds.taken < 3


def test_tls_drips_have_a_deadline(secure):
    secure.answer = DRIPS["body"]
    with Seconds() as seconds, pytest.raises(RemoteTimeout):
        fetch_of(secure, "photos.example", deadline=0.5)
    assert seconds.taken < 3


@pytest.mark.parametrize("lie", [truncated(CONTENT), overlong(CONTENT)])
def test_tls_lies(secure, lie):
    secure.answer = lie
    with pytest.raises(RemoteFailed, match="does not send"):
        fetch_of(secure, "photos.example")


def test_tls_is_not_left_for_http(secure, web):
    secure.answer = redirects(web.url)
    url = f"https://photos.example:{secure.port}/"
    allowed = frozenset({Origin.of(url), Origin.of(web.url)})
    assert "redirects to http" in refused(url, allowed)
    assert web.requests == []


def test_http_is_left_for_tls(secure, web):
    web.answer = redirects(f"https://photos.example:{secure.port}/")
    allowed = frozenset({Origin.of(f"https://photos.example:{secure.port}/"), Origin.of(web.url)})
    fetch(web.url, io.BytesIO(), max_size=0, timeout=5, deadline=5, allowed=allowed)
    assert len(secure.requests) == 1
