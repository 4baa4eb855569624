"""First room of the flow: bytes durable in the spool, a row in the record, then success."""
