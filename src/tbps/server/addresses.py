"""Names, ports and addresses that requests bear: the Host and the Origin of a request, and whom a proxy asks for.

A host is compared by name and by port. A port that is left out is that of the scheme: 80 of http, 443 of https. Names are compared
in lower case, without a dot at the end; IPv6 addresses in their shortest form.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from tbps.errors import SettingsError

LOOPBACK = ("127.0.0.1", "localhost", "::1")

_PORTS = {"http": 80, "https": 443}
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_PORT = re.compile(r"[0-9]{1,5}")
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Host:
    """A name or address, and the port where one was written."""

    name: str
    port: int | None = None

    def port_under(self, scheme: str) -> int | None:
        """The port that is meant in an address of that scheme."""
        return _PORTS.get(scheme) if self.port is None else self.port


@dataclass(frozen=True, slots=True)
class Origin:
    """The scheme and the host of a page."""

    scheme: str
    host: Host

    def is_at(self, other: Host) -> bool:
        """Whether another host, in an address of the same scheme, is this one."""
        return (self.host.name, self.host.port_under(self.scheme)) == (other.name, other.port_under(self.scheme))


def parse_host(text: str) -> Host | None:
    """`name`, `name:port`, `[IPv6]` or `[IPv6]:port`; None for everything else."""
    if text.startswith("["):
        inside, closed, rest = text[1:].partition("]")
        name = _ipv6(inside) if closed else None
    else:
        before, colon, after = text.partition(":")
        inside, rest = before, colon + after
        name = _name(inside)
    if name is None or (rest and not (rest[0] == ":" and (rest == ":" or _PORT.fullmatch(rest[1:])))):
        return None
    port = int(rest[1:]) if len(rest) > 1 else None
    return None if port is not None and port > 65_535 else Host(name, port)


def parse_origin(text: str) -> Origin | None:
    """What a browser sends as Origin; None for "null" and for what is none."""
    scheme, _, rest = text.partition("://")
    host = parse_host(rest) if scheme.lower() in _PORTS else None
    return None if host is None else Origin(scheme.lower(), host)


def allowed_host(text: str) -> Host:
    """A value of --allow-host. Raises SettingsError that says how it is written."""
    plain = text.strip()
    host = parse_host(plain) or parse_host(f"[{plain}]")
    if host is None:
        likely = parse_host(re.sub(r"^[a-z]+://", "", plain, flags=re.IGNORECASE).partition("/")[0])
        hint = f"; did you mean {likely.name!r}?" if likely is not None else ""
        raise SettingsError(
            f"--allow-host {text!r}: give a name or address, without scheme and path, such as search.example.org; "
            f"with a port only where it is neither 80 nor 443: search.example.org:8443{hint}"
        )
    return host


def proxy_network(text: str) -> _Network:
    """A value of --trusted-proxy. Raises SettingsError that says how it is written."""
    try:
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError as error:
        raise SettingsError(
            f"--trusted-proxy {text!r} is no IP address and no network; write it as 127.0.0.1, ::1 or 10.0.0.0/8"
        ) from error


@final
class Addresses:
    """Names that a service goes by, and proxies that it believes.

    any_name: requests may bear any Host, since there is no list of names.
    """

    def __init__(self, allow_hosts: Sequence[str], trusted_proxies: Sequence[str], any_name: bool) -> None:
        self._allowed = tuple(allowed_host(text) for text in allow_hosts)
        self._names = {*LOOPBACK, *(host.name for host in self._allowed)}
        self._proxies = tuple(proxy_network(text) for text in trusted_proxies)
        self._any_name = any_name

    def refusal(self, headers: Mapping[str, str]) -> str | None:
        """Reason to refuse a request: its Host names another service, or a page of another site sent it. None to accept it."""
        host, sent = parse_host(headers.get("host", "")), headers.get("origin")
        if not self._any_name and (host is None or host.name not in self._names):
            name = headers.get("host", "")[:100]
            return f"{name!r} is no name of this service; the service's keeper may add one with: tbps serve --allow-host"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and headers.get("sec-fetch-mode") != "navigate":
            return "a page of another site asked for this"
        if sent is None:
            return None
        origin = parse_origin(sent)
        if origin is not None and ((host is not None and origin.is_at(host)) or any(map(origin.is_at, self._allowed))):
            return None
        return (
            f"a page of another site ({sent[:100]!r}) asked for this; where that is this service behind a proxy, its keeper adds "
            "the name, and the port if it is neither 80 nor 443, with: tbps serve --allow-host"
        )

    def believes(self, peer: str) -> bool:
        """Whether a peer is a proxy that is believed."""
        address = _address(peer)
        return address is not None and any(address in network for network in self._proxies)

    def client(self, peer: str, forwarded: Iterable[str]) -> str:
        """Who asks: the peer or, where that is a trusted proxy, the last address of X-Forwarded-For that is no trusted proxy.

        forwarded: the values of that header. From what is no address on, nothing is believed.
        """
        client = peer
        entries = ",".join(forwarded).split(",")
        while self.believes(client) and entries:
            address = _forwarded(entries.pop().strip())
            if address is None:
                break
            client = address
        return client

    def scheme(self, peer: str, forwarded: Iterable[str], scheme: str) -> str:
        """The scheme of a request, as a trusted proxy says in X-Forwarded-Proto, else as it came."""
        last = ",".join(forwarded).split(",")[-1].strip().lower()
        return last if last in _PORTS and self.believes(peer) else scheme


def group_of(address: str) -> str:
    """What addresses are counted by: an IPv4 address, or the 64 bits of an IPv6 address that one household has many of."""
    found = _address(address)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(found), 64), strict=False))
    return address if found is None else str(found)


def _name(text: str) -> str | None:
    lower = text.lower().removesuffix(".")
    if not lower.isascii():
        try:
            lower = lower.encode("idna").decode()
        except UnicodeError:
            return None
    return lower if len(lower) <= 253 and _NAME.fullmatch(lower) else None


def _ipv6(text: str) -> str | None:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        return None


def _address(text: str) -> _Address | None:
    """An IP address; one of IPv4 that is written as IPv6 as the former."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _forwarded(text: str) -> str | None:
    """An entry of X-Forwarded-For, with or without a port; None for what is no address."""
    address = _address(text)
    if address is None:
        bare = re.sub(r":[0-9]{1,5}$", "", text)
        address = _address(bare[1:-1] if bare[:1] == "[" and bare[-1:] == "]" else bare)
    return None if address is None else str(address)
