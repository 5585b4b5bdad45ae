"""The inside of channels: their history, who is there, and who has what. Synchronous; the hub's actor owns it."""
