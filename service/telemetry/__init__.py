"""Tracing: the export of spans, and the spans of the HTTP server."""
