"""Speed, measured against a reference beside it: ``python -m tests.bench`` (``make bench``).

================  ============================================================================
``reference``     what everything is compared with; frozen
``ground``        the server, the processes of a bus, what machine this is
``children``      those processes: an engine, a no-op worker, the reference's reader
``titles``        distinct titles of tasks
``history``       a long log, written without an engine
``measures``      submit, e2e, latency, replay, startup, flat
``routing``       delegate: the route of a text, in one process without a bus
``turns``         turns: the engine in memory, hot
``profiling``     where an engine's time goes
``table``         figures for people
================  ============================================================================

Nothing here passes or fails: figures depend on the machine, so each is printed with its aim, the
reference of the same moment, and the load.
"""
