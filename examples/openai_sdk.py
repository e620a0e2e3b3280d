"""Two questions in one conversation, with OpenAI's official SDK.

Usage: python openai_sdk.py [BASE_URL] [PROVIDER]
"""

import sys
import uuid

from openai import OpenAI

BASE_URL = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:1337/v1"
PROVIDER = sys.argv[2] if len(sys.argv) > 2 else "Local"


def ask(client: OpenAI, message: str, conversation_id: str) -> None:
    stream = client.chat.completions.create(
        model="",
        messages=[{"role": "user", "content": message}],
        stream=True,
        temperature=0,
        max_tokens=60,
        extra_body={"provider": PROVIDER, "conversation_id": conversation_id},
    )
    for chunk in stream:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    print("\n")


with OpenAI(base_url=BASE_URL, api_key="not-needed-on-loopback") as openai:
    conversation = str(uuid.uuid4())
    ask(openai, "Hello, i am Heiner. How are you?", conversation)
    ask(openai, "Tell me somethings about my name", conversation)
