"""Pixels in, findings out. Runs from a notebook without the rest of the agent."""
