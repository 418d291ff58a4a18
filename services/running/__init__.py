"""A bus as `asb up` and `asb service` run it: a host, and processes beside it."""
