"""Two questions in one conversation, with `requests` and server-sent events read line by line.

Usage: python requests_iter_lines.py [BASE_URL] [PROVIDER]
"""

import json
import sys
import uuid

import requests

BASE_URL = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:1337/v1"
PROVIDER = sys.argv[2] if len(sys.argv) > 2 else "Local"


def ask(message: str, conversation_id: str) -> None:
    body = {
        "model": "",
        "provider": PROVIDER,
        "stream": True,
        "messages": [{"role": "user", "content": message}],
        "conversation_id": conversation_id,
        "temperature": 0,
        "max_tokens": 60,
    }
    with requests.post(f"{BASE_URL}/chat/completions", json=body, stream=True, timeout=120) as response:
        if not response.ok:
            sys.exit(f"{response.status_code}: {response.json()['error']['message']}")
        for line in response.iter_lines():
            if not line.startswith(b"data: ") or line == b"data: [DONE]":
                continue
            chunk = json.loads(line[6:])
            if "error" in chunk:
                sys.exit(chunk["error"]["message"])
            print(chunk["choices"][0]["delta"].get("content") or "", end="", flush=True)
    print("\n")


conversation = str(uuid.uuid4())
ask("Hello, i am Heiner. How are you?", conversation)
ask("Tell me somethings about my name", conversation)
