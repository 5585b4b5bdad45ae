"""The socket's frames: the commands that clients send, and what the server sends."""
