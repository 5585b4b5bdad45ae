"""What both dialects need to read what upstreams send: odd JSON, text, numbers, finish reasons and errors."""
