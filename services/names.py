"""The services by name, as users start them: what there is, without loading any of it. PURE."""

from __future__ import annotations

DECIDERS = ("intake", "delegator", "dispatcher", "throttle", "reporter")
PROJECTORS = ("inbox", "views", "progress", "alerts", "usage", "reports", "snapshot")
SERVICES = (*DECIDERS, *PROJECTORS)
