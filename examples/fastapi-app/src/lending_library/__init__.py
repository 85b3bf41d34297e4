"""A lending library: authors, books, members, and who has which book at home."""
