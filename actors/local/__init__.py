"""The local model: its file, and the child process in which llama.cpp serves it."""
