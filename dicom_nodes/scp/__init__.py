"""Services we provide on the listening node."""
