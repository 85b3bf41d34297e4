"""Measurements against the raw drivers, plain SQLAlchemy and named peers; never run by tests."""
