"""The queries by name, as plain functions that take a session."""
