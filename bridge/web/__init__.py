"""What can be asked over HTTP: status, metrics, liveness, readiness.

Nothing here changes anything, and nothing here is imported before `bridge.app`
opens the roof: a gateway with `web: off` does not pay for it.
"""
