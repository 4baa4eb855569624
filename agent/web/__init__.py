"""The worklist page, the REST API, health and metrics: one FastAPI application."""
