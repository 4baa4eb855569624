"""UPS-RS: the workitems over HTTP (PS3.18 section 11)."""
