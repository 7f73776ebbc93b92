"""What the listener costs beside its alternatives, all of them in turns in one run: `make bench`.

These machines are noisy: read the ratios, not the milliseconds.
"""
