"""From a queued study to findings and a priority."""
