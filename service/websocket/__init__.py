"""The WebSocket endpoint: upgrade, admission, the session, and the transport."""
