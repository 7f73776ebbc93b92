"""Keeps every staging environment of a CrafterCMS site equal to its live one."""

__version__ = "0.1.0"
