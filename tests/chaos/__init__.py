"""Failures of production, brought about on purpose: cut links, dead servers, cancellations."""
