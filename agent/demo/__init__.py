"""The synthetic hospital: a PACS, scanners and studies that show the agent at work."""
