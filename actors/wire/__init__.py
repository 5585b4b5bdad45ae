"""Our own HTTP/1.1 client for upstreams: connections, JSON calls, and server-sent events."""
