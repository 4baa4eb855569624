"""The subcommands of `worklist-agent`: argument parsing, with heavy imports inside functions."""
