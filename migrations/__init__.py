"""Alembic migrations of the record, one file a step; run by `worklist-agent db upgrade`."""
