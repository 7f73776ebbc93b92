"""Real parts for `make demo` and the tests: a published repository as Studio makes it, and an SSH server."""
