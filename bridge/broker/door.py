"""One listener as the broker sees it: what it asks of a device, and what it grants.

A door knows nothing of sockets. The listener makes one and hands it to every link
that comes through it; a reload changes what the door says, and those who are inside
already keep what they were granted.
"""

from __future__ import annotations

from typing import Literal

from bridge.broker.limits import Limits

__all__ = ["Door"]


class Door:
    """`links` counts who is inside; `url` is as the configuration says it.

    `anonymous`: who shows no name is let in. `unverified_users`: a user name that
    nothing proves is believed, as far as rules are concerned. `user_from`: what of a
    client certificate is the user (`cn`, `san`), or `password`: a certificate is not
    enough by itself.
    """

    __slots__ = ("anonymous", "limits", "links", "unverified_users", "url", "user_from")

    def __init__(
        self,
        url: str,
        limits: Limits,
        *,
        anonymous: bool = True,
        unverified_users: bool = False,
        user_from: Literal["cn", "san", "password"] = "cn",
    ) -> None:
        self.url = url
        self.limits = limits
        self.anonymous = anonymous
        self.unverified_users = unverified_users
        self.user_from: Literal["cn", "san", "password"] = user_from
        self.links = 0

    def become(self, other: Door) -> None:
        """Ask and grant what `other` does, from the next device on."""
        self.limits = other.limits
        self.anonymous = other.anonymous
        self.unverified_users = other.unverified_users
        self.user_from = other.user_from
