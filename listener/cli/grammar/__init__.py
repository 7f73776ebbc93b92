"""What may be typed: the arguments and the help text of every command.

A command is carried out by the function that its row or its parser names. Nothing but argparse is imported
here, so `--help` and a mistake in the command line are answered at once.
"""
