"""OpenAI's dialects: chat completions, responses and embeddings, on the client's side and the provider's."""
