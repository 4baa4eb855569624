"""Training data: a table of studies, split without leaks, tokenized once into mapped shards."""
