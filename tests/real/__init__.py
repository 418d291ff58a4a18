"""The real agent programs, from the npm registry, against a mock of their providers on loopback.

``make e2e`` installs them into a cache folder and runs what is here; ``make test`` does not. No
test needs a key, and nothing but the installation leaves this machine.
"""
