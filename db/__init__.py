"""The record of everything: SQLAlchemy models, the session, and the queries by name."""
