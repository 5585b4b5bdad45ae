"""The hub's inside: what is followed, and how it goes out. Synchronous, so that no delivery ever waits for a client."""
