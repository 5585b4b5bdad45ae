"""The append-only log of a request, its readers in process, and its frames."""
