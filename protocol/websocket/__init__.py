"""The frames of ``/ws``: ``commands`` that clients send, and ``out`` and ``channels``, which the server sends."""
