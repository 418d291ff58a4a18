"""Workers: they join, are given tasks, and report.

==================  ==============================================================================
``task``            what a worker's code sees: Task, Result, Usage, Driver, WorkerOptions
``service``         a worker's whole life: one session after the other
``session``         one session: inbox, running attempts
``lease``           its heartbeat; ``identity``: whose a heartbeat is, and whether that one lives
``outbox``          reports on their way to the intake stream
``python``          the decorator: a worker written in Python
``command``         the driver that runs a command for each task, below ``supervisor``
``runs``            what was started, so that it can be ended after a crash
``simulated``       the demonstration's agent
==================  ==============================================================================
"""

from services.worker.python import PythonWorker, worker
from services.worker.service import serve
from services.worker.task import (
    Driver,
    PermanentError,
    Result,
    RetryableError,
    Task,
    Usage,
    WorkerOptions,
)

__all__ = [
    "Driver",
    "PermanentError",
    "PythonWorker",
    "Result",
    "RetryableError",
    "Task",
    "Usage",
    "WorkerOptions",
    "serve",
    "worker",
]
