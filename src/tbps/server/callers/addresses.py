"""Checks of Host and Origin headers, and client addresses from forwarding headers.

Hosts are compared by name and port; a missing port stands for the default port of the scheme (http 80, https 443). Names are
compared in lower case, without a trailing dot; IPv6 addresses in their shortest form.
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
    """Name or address of a host, and its port if one was given."""

    name: str
    port: int | None = None

    def port_under(self, scheme: str) -> int | None:
        """Port, or the default port of `scheme` if none was given."""
        return _PORTS.get(scheme) if self.port is None else self.port


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme and host of a page."""

    scheme: str
    host: Host

    def is_at(self, other: Host) -> bool:
        """Whether `other`, with the scheme of this origin, is the host of this origin."""
        return (self.host.name, self.host.port_under(self.scheme)) == (other.name, other.port_under(self.scheme))


def parse_host(text: str) -> Host | None:
    """Parse `name`, `name:port`, `[IPv6]` or `[IPv6]:port`. Returns None for anything else."""
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
    """Parse an Origin header. Returns None for "null" and for invalid values."""
    scheme, _, rest = text.partition("://")
    host = parse_host(rest) if scheme.lower() in _PORTS else None
    return None if host is None else Origin(scheme.lower(), host)


def allowed_host(text: str) -> Host:
    """Parse a value of --allow-host. Raises SettingsError that describes the format."""
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
    """Parse a value of --trusted-proxy. Raises SettingsError that describes the format."""
    try:
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError as error:
        raise SettingsError(
            f"--trusted-proxy {text!r} is neither an IP address nor a network; write it as 127.0.0.1, ::1 or 10.0.0.0/8"
        ) from error


@final
class Addresses:
    """Host names that a service accepts, and proxies whose forwarding headers it trusts.

    any_name: accept every Host header.
    """

    def __init__(self, allow_hosts: Sequence[str], trusted_proxies: Sequence[str], any_name: bool) -> None:
        self._allowed = tuple(allowed_host(text) for text in allow_hosts)
        self._names = {*LOOPBACK, *(host.name for host in self._allowed)}
        self._proxies = tuple(proxy_network(text) for text in trusted_proxies)
        self._any_name = any_name

    def refusal(self, headers: Mapping[str, str]) -> str | None:
        """Reason to refuse a request, or None to accept it.

        A request is refused if its Host is not a name of the service or if a page of another site sent it.
        """
        host, sent = parse_host(headers.get("host", "")), headers.get("origin")
        if not self._any_name and (host is None or host.name not in self._names):
            name = headers.get("host", "")[:100]
            return f"{name!r} is not a name of this service; its operator can add the name with: tbps serve --allow-host"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and headers.get("sec-fetch-mode") != "navigate":
            return "a page of another site sent this request"
        if sent is None:
            return None
        origin = parse_origin(sent)
        if origin is not None and ((host is not None and origin.is_at(host)) or any(map(origin.is_at, self._allowed))):
            return None
        return (
            f"a page of another site ({sent[:100]!r}) sent this request; if that is the address of this service behind a proxy, "
            "its operator adds the name, and the port unless it is 80 or 443, with: tbps serve --allow-host"
        )

    def trusts(self, peer: str) -> bool:
        """Whether `peer` is the address of a trusted proxy."""
        address = _address(peer)
        return address is not None and any(address in network for network in self._proxies)

    def client(self, peer: str, forwarded: Iterable[str]) -> str:
        """Address of the client: `peer` or, behind trusted proxies, the last address in X-Forwarded-For that is not a proxy's.

        forwarded: values of the X-Forwarded-For headers. They are read from the right up to the first invalid address.
        """
        client = peer
        entries = ",".join(forwarded).split(",")
        while self.trusts(client) and entries:
            address = _forwarded(entries.pop().strip())
            if address is None:
                break
            client = address
        return client

    def scheme(self, peer: str, forwarded: Iterable[str], scheme: str) -> str:
        """Scheme of a request: from X-Forwarded-Proto if a trusted proxy sent it, else `scheme`."""
        last = ",".join(forwarded).split(",")[-1].strip().lower()
        return last if last in _PORTS and self.trusts(peer) else scheme


def group_of(address: str) -> str:
    """Group by which addresses are counted: the address itself for IPv4, its /64 network for IPv6."""
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
    """Parse an IP address; IPv4-mapped IPv6 addresses become IPv4. Returns None for anything else."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _forwarded(text: str) -> str | None:
    """Parse an entry of X-Forwarded-For, with or without a port. Returns None for anything else."""
    address = _address(text)
    if address is None:
        bare = re.sub(r":[0-9]{1,5}$", "", text)
        address = _address(bare[1:-1] if bare[:1] == "[" and bare[-1:] == "]" else bare)
    return None if address is None else str(address)
