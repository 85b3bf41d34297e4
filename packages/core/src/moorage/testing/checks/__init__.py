"""The checks of the suite, one module per concern; `suite.py` puts them together."""
