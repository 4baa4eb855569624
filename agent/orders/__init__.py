"""What the RIS says: orders, merges and final reports, joined to the studies they are about."""
