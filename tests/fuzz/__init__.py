"""Fuzzing: functions that take bytes, and raise where something is promised that does not hold."""
