"""The model on this machine: its file, and llama.cpp serving it in a process of its own."""
