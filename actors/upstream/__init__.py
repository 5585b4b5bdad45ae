"""Whom calls are made to, chat or embeddings: who may call now, who is worth asking, and when a call is repeated."""
