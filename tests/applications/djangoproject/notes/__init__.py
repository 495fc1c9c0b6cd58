"""A Django project: sessions and notes in sqlite, and files that are uploaded."""
