"""Which pack reads a study, or why none."""
