"""Real parts to rehearse with: a published repository as Studio leaves it, and an SSH server on loopback.

`make demo` and the tests stand on these.
"""
