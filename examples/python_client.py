"""Two questions in one conversation, with Modelway's own client.

Usage: python python_client.py [BASE_URL] [PROVIDER]
Without an address no server is needed: the gateway runs inside this program.
"""

import sys

import modelway

BASE_URL = sys.argv[1] if len(sys.argv) > 1 else ""
PROVIDER = sys.argv[2] if len(sys.argv) > 2 else "Local"

with modelway.Client(BASE_URL) as client:
    conversation = client.conversation(provider=PROVIDER)
    for question in ("Hello, i am Heiner. How are you?", "Tell me somethings about my name"):
        print(f"> {question}")
        for piece in conversation.send(question, temperature=0, max_tokens=60):
            print(piece, end="", flush=True)
        print("\n")
