"""The box beside the line: runtime, follower and the `lineside` command."""
