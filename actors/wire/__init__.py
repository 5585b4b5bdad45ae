"""The upstream wire: HTTP and server-sent events, without a vendor's SDK."""
