"""The protocol: immutable messages and values, ports, dialects and the table of errors. No I/O."""
