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
``admission``     admission in memory
``footprint``     idle, memory, fleet: what a bus takes that does nothing, or has 1,000 workers
``peers``         huey and taskiq beside us, where they are installed
``compare``       another checkout beside this one, in paired waves (``--base``)
``page``          ops/benchmarks.md
``profiling``     where an engine's time goes
``table``         figures for people
================  ============================================================================

Nothing here passes or fails: figures depend on the machine, so each is printed with its aim, the
reference of the same moment, and the load.
"""
