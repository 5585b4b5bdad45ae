"""The HTTP server: the application, its connections, its start and its stop."""
