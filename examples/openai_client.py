"""The official OpenAI SDK against a running server: TIDEGATE_URL is its address, TIDEGATE_API_KEY the key."""

import os

import openai

client = openai.OpenAI(
    base_url=os.environ.get("TIDEGATE_URL", "http://127.0.0.1:3000") + "/v1",
    api_key=os.environ.get("TIDEGATE_API_KEY") or "unused",
)

whole = client.chat.completions.create(
    model="default", messages=[{"role": "user", "content": "Say hello."}], max_completion_tokens=32, temperature=0
)
print(whole.choices[0].message.content, whole.usage)

stream = client.chat.completions.create(
    model="default",
    messages=[{"role": "user", "content": "Name three fruits."}],
    max_completion_tokens=64,
    stream=True,
    stream_options={"include_usage": True},
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    elif chunk.usage:
        print(f"\n{chunk.usage.completion_tokens} tokens; request {chunk.id.removeprefix('chatcmpl-')}")
