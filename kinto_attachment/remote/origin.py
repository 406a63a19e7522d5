"""The origin of a URL, and whether an address is public."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from ..errors import RemoteFailed

_PORTS = {"http": 80, "https": 443}

# Printable ASCII without the backslash: URL parsers disagree about everything else.
_URL = re.compile(r"[!-\[\]-~]+")
_NETLOC = re.compile(r"(\[(?P<ipv6>[0-9a-f:.]+)\]|(?P<name>[a-z0-9_.-]+))(:(?P<port>[0-9]{0,5}))?")
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")
# https://url.spec.whatwg.org/#ends-in-a-number-checker: such a host is taken for an IPv4 address.
_NUMBER = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)")

# https://www.iana.org/assignments/iana-ipv6-special-registry
_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
# Networks that some or all versions of `ipaddress` call global, although they are not.
_SPECIAL = [
    ip_network(text)
    for text in (
        "168.63.129.16/32",  # Azure: the host of a virtual machine
        "192.0.0.0/24",
        "192.88.99.0/24",  # RFC 7526: relays of 6to4
        "2002::/16",  # 6to4, which embeds any IPv4 address
        "2001::/23",  # RFC 4380: Teredo, which embeds any IPv4 address; and other protocols
        "2001:db8::/32",
        "3fff::/20",
    )
]


@dataclass(frozen=True)
class Origin:
    """The origin of a URL (RFC 6454): where a request for it is sent.

    >>> Origin.of("https://Photos.example/a?b")
    Origin(scheme='https', host='photos.example', port=443)
    """

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> "Origin":
        """Return the origin of a URL.

        :raises RemoteFailed: if it is not an http or https URL, or one that parsers read
            differently.
        """
        return split(url)[0]

    @property
    def netloc(self) -> str:
        """The value of the ``Host`` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def split(url: str) -> tuple[Origin, str]:
    """Return the origin of a URL, and its request target: path and query.

    :raises RemoteFailed: if it is not an acceptable URL. The message is a noun phrase, which
        callers can put into a sentence.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise RemoteFailed("not a URL") from error
    if not _URL.fullmatch(url) or parts.scheme not in _PORTS:
        raise RemoteFailed("not an http or https URL")
    if "@" in parts.netloc:
        raise RemoteFailed("a URL with a user name or a password")
    match = _NETLOC.fullmatch(parts.netloc.lower())
    if not match or not _is_host(match["name"], match["ipv6"]):
        raise RemoteFailed("a URL without a valid host")
    port = int(match["port"] or _PORTS[parts.scheme])
    if port > 65535:
        raise RemoteFailed("a URL with an invalid port")
    query = f"?{parts.query}" if parts.query else ""
    return Origin(parts.scheme, match["name"] or match["ipv6"], port), (parts.path or "/") + query


def is_public(address: str) -> bool:
    """Return whether an IP address is on the public Internet. Addresses of tunnels and mapped IPv4
    addresses are not, because they lead to other addresses.

    >>> is_public("9.9.9.9"), is_public("169.254.169.254"), is_public("::ffff:9.9.9.9")
    (True, False, False)
    """
    ip = ip_address(address.partition("%")[0])
    if ip.version == 6 and ip in _NAT64:  # RFC 6052: IPv4 as seen by hosts that have only IPv6
        ip = IPv4Address(int(ip) & 0xFFFFFFFF)
    elif ip.version == 6 and ip not in _UNICAST:
        return False
    if not ip.is_global or ip.is_multicast or ip.is_reserved:
        return False
    return not any(ip in network for network in _SPECIAL)


def _is_host(name: str | None, ipv6: str | None) -> bool:
    """Return whether all parsers agree about a host. Some take 0177.1, 0x7f000001 and 2130706433
    for 127.0.0.1."""
    try:
        if ipv6:
            IPv6Address(ipv6)
        elif _NUMBER.fullmatch(name):
            IPv4Address(name)
        else:
            return _NAME.fullmatch(name) is not None
    except ValueError:
        return False
    return True
