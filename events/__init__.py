"""What stands on the log, whole by construction: importing anything of this package registers every
type of event, so no process can be started that knows only some of them."""

from events import account, clock, log, policy, routing, server, task, usage, worker

__all__ = ["account", "clock", "log", "policy", "routing", "server", "task", "usage", "worker"]
