"""The configuration: one YAML file, read once and judged as a whole.

    file → read (YAML) → resolve (references) → check (shape) and broken (rules) → Settings

`settings.load` returns frozen settings if everything is right. Otherwise it raises one error that lists
everything that is wrong. No message and no representation of anything here shows a secret. This file imports
nothing: a command that needs only the listener's address imports `address`, which is quick.
"""
