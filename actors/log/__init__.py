"""The append-only log of a request, and its readers."""
