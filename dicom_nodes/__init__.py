"""The network edge, both ways. Calls the handlers it was given; knows no models, no database, no policy."""
