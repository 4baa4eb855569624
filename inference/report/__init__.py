"""Report drafts: from visual tokens or findings to sentences, checked against the image."""
