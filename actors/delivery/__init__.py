"""Fan-out: topics, their readers, and one write per socket. Synchronous, so that no delivery waits for a client."""
