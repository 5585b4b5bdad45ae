"""Anthropic's messages dialect, on the client's side and the provider's."""
