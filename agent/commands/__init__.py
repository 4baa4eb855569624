"""The subcommands of `worklist-agent`: argument parsing only, heavy imports inside the functions."""
