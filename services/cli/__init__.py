"""The command line: one file per group of commands. It asks services and views and decides nothing.

================  ==========================================================================
``main``          the program: options that hold everywhere, errors, exit codes
``bus``           from the options to a Redis, its keys and its state
``out``           stdout for data, stderr for the rest; tables that fit the terminal
``words``         figures, times and limits as people read them
``screens``       the status, metrics and throttle screens: State → text
``waiting``       why a task waits: State → a sentence
``history``       one task's events, drawn with gaps to scale
``view``          status, metrics, throttle
``running``       a host, its Redis and its workers, from start to clean stop
``up``            up, service          ``work``      worker, pause, resume
``submit``        submit               ``lines``     what may be submitted, checked
``follow``        waiting for the ends of tasks
``tasks``         tasks, task, cancel, retry
``log``           events, replay       ``doctor``    doctor, config
``findings``      what doctor looks at, and how a check is written
``demo``          demo                 ``manager``   manager, the seed's prompt
``redis_command`` redis
================  ==========================================================================
"""
