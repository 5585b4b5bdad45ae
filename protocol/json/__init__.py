"""JSON: values that are still being written, schemas, and decoding errors that name the field."""
