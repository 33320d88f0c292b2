"""How long to wait before trying again: exponential, with full jitter.

Any moment between now and the bound is equally likely. A thousand gateways that
lost the same broker at the same moment then come back spread over the whole
window, instead of in step; nothing spreads them better for the same total work.
"""

from __future__ import annotations

from typing import Final

__all__ = ["delay"]

_DOUBLINGS_MAX: Final = 64  # the cap is reached long before; beyond 1,023 a float would overflow


def delay(attempt: int, luck: float, base_s: float = 0.5, cap_s: float = 30.0) -> float:
    """Return the seconds to wait after failure number `attempt` (counted from 0).

    `luck` in [0, 1) is drawn by the caller. The result is below `base_s` after the
    first failure, below twice that after the second, and never above `cap_s`.
    """
    return luck * min(cap_s, base_s * 2.0 ** min(attempt, _DOUBLINGS_MAX))
