"""What operators see of the agent: structured logs without patient data, and metrics."""
