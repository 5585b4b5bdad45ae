"""What is said: immutable messages, log entries and the error catalogue. No I/O."""
