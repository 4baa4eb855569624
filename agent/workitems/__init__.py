"""Reading tasks as unified procedure steps (PS3.4 annex CC): one for each study."""
