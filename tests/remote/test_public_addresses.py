"""Only public addresses are asked, whatever a URL or a name server says."""

import io
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinto_attachment.errors import RemoteFailed
from kinto_attachment.remote import Origin, fetch, is_public
from tests.support.fetches import CONTENT, PUBLIC, refused
from tests.support.servers.web import redirects

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
def test_a_refused_url_is_neither_looked_up_nor_connected_to(url, resolver, connected):
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


def test_the_error_does_not_repeat_the_password():
    message = refused("http://user:secret@photos.example/")
    assert "password" in message and "secret" not in message


def test_origins():
    assert Origin.of("HTTP://Photos.Example/") == Origin("http", "photos.example", 80)
    assert Origin.of("https://photos.example:443/") == Origin.of("https://photos.example")
    assert Origin.of("http://photos.example:0") == Origin("http", "photos.example", 0)
    assert Origin("https", "photos.example", 443).netloc == "photos.example"
    assert Origin("http", "photos.example", 443).netloc == "photos.example:443"
    assert Origin.of("http://[::1]:8080/").netloc == "[::1]:8080"


# Addresses.

# Special addresses that are not globally reachable, as IANA registers them; and multicast.
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
def test_private_addresses_in_urls_are_refused(address, connected):
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
def test_every_public_address_is_global(address):
    if is_public(str(address)):
        embedded = address
        if address in ip_network("64:ff9b::/96"):
            embedded = IPv4Address(int(address) & 0xFFFFFFFF)
        assert embedded.is_global and not embedded.is_multicast
        assert not any(embedded in network for network in NOT_GLOBAL)


@given(st.ip_addresses(v=4))
def test_an_embedded_private_address_is_not_public(address):
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


def test_every_address_of_a_name_is_checked(resolver, connected):
    for answer in ([PUBLIC, "127.0.0.1"], ["10.0.0.1", PUBLIC], [PUBLIC, "::1"]):
        resolver.answers = [answer]
        assert "not on the public Internet" in refused("http://photos.example/")
    assert connected == []


def test_a_name_is_looked_up_once(resolver, connected):
    """DNS rebinding: the name leads to a public address first, and to a private one later."""
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


def test_the_next_address_is_tried(resolver, connected):
    resolver.answers = [["2606:4700::1111", PUBLIC]]
    refused("http://photos.example/")
    assert connected == ["2606:4700::1111", PUBLIC]


def test_each_redirect_is_looked_up_and_checked(resolver, web, elsewhere):
    url = f"http://photos.example:{web.port}/"
    web.answer = redirects(f"http://inside.example:{elsewhere.port}/")
    resolver.answers = [["127.0.0.1"]]
    assert "not on the public Internet" in refused(url, frozenset({Origin.of(url)}))
    assert resolver.asked == ["photos.example", "inside.example"]
    assert elsewhere.requests == []


def test_only_the_allowed_origin_may_be_private(web, elsewhere):
    allowed = frozenset({Origin.of(web.url)})
    refused(elsewhere.url, allowed)
    refused(f"http://localhost:{web.port}/", allowed)
    refused(f"https://127.0.0.1:{web.port}/", allowed)
    assert web.requests == elsewhere.requests == []
