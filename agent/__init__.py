"""The application: receives, assembles, routes, analyses, composes and delivers studies."""

__version__ = "0.1.0"
PRODUCT = "Worklist Agent"
