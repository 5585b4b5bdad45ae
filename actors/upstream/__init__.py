"""Calls to upstream providers, for chat and embeddings: admission, fallback, retries, rate limits, prices."""
