"""vLLM beside the agent: its own environment, its own process group, watched and started again."""
