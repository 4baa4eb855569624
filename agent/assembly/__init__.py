"""When a study is complete, and what late instances do."""
