"""The network edge, both ways: calls the handlers it was given; knows no models, no database."""
