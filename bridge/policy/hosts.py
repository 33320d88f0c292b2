"""Which Host a request may name, and which web page may speak to us: the guard against DNS rebinding.

A page from the internet may not read http://127.0.0.1:8080 in the browser of
whoever visits it: that is another origin. Its author gets around this by letting
a name of his own point at 127.0.0.1; then the page and the gateway are one
origin to the browser. What he cannot change is that the browser sends his name
as the Host. So:

- an address is welcome, whichever it is: rebinding needs a name. This is how a
  gateway bound to 0.0.0.0 is reached, and how probes of orchestrators ask;
- `localhost` and what ends in `.localhost` are welcome: no public name does;
- this machine's own name is welcome, bare and with `.local`;
- names that the operator lists are welcome: in a network of containers, say;
- any other name is not.

That we are bound to 0.0.0.0 does not widen the list. It says that the network
may read the status, not that every page on the internet may.

A WebSocket is worse off: a browser lets any page open one to anywhere, and only
says in Origin which page it is. A page may if it came from the host that it now
speaks to, and that host is one of the above, or if the operator lists its origin.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address

__all__ = ["host_of", "is_ours", "names_of", "origin_is_welcome"]


def names_of(hostname: str) -> set[str]:
    """The names of a machine that calls itself so. No resolver is asked: it may be slow, or lie."""
    name = hostname.lower()
    return {name, f"{name}.local"} if name else set()


def host_of(header: str) -> str:
    """The name or address in a Host header, in lower case, without port, brackets and last dot."""
    header = header.strip().lower()
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].removesuffix(".")


def is_ours(host: str, names: Collection[str]) -> bool:
    """Whether a host, as `host_of` returns it, can only mean this machine; `names` are its own."""
    if host == "localhost" or host.endswith(".localhost") or host in names:
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def origin_is_welcome(origin: str, host: str, names: Collection[str], listed: Collection[str]) -> bool:
    """Whether a page of this Origin may open a WebSocket to this Host.

    `listed` are origins as browsers send them (`https://ui.plant`); `*` lets every page in.
    """
    origin = origin.strip().lower()
    if "*" in listed or origin in listed:
        return True
    scheme, colon, rest = origin.partition("://")
    if not colon or scheme not in ("http", "https") or "/" in rest or "@" in rest:
        return False  # `null`, the origin of files and of sandboxed frames, is one of these
    page = host_of(rest)
    return page == host_of(host) and is_ours(page, names)
