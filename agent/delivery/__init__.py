"""Getting results to where they are read: outbox, channels, and a last look at identity."""
