"""Sends a running server whatever clients may send: `python -m tests.wire http://localhost:1337 [examples]`.

Every reply must be HTTP, no request may cost the server more than its own connection, and none is a bug. Let
the server have `head_timeout_s` and `body_timeout_s` below a second: half of what is sent never ends.
"""

import sys
from urllib.parse import urlsplit

from hypothesis import HealthCheck, given, settings

from tests.wire.talking import replies, talk
from tests.wire.traffic import ANYTHING, CUTS, GOODBYE, split


def fuzz(port: int, examples: int) -> None:
    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=ANYTHING, cuts=CUTS)
    def send(data: bytes, cuts: list[int]) -> None:
        for reply in replies(talk(port, split(data + GOODBYE, cuts))):
            assert reply.whole
            assert reply.status != 500
        assert replies(talk(port, [GOODBYE]))[0].status == 200

    send()


if __name__ == "__main__":
    fuzz(urlsplit(sys.argv[1]).port or 1337, int(sys.argv[2]) if len(sys.argv) > 2 else 1000)
    print("every reply was HTTP, and the server lives")
