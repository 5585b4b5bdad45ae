"""Where spans go, and the spans of the HTTP server."""
