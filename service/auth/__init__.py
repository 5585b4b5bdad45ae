"""Authentication: API keys held as digests, signed tokens, and one-time tickets."""
