"""Migrations on real databases, by one process and by many."""
