"""What botocore is needed for: AWS's credentials, signatures, and the frames of an event stream.

The only file that imports botocore; loaded with the first call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.eventstream import EventStreamBuffer, ParserError
from botocore.exceptions import BotoCoreError
from botocore.session import Session

from modelway.errors import SignInRequired, UpstreamProtocolError
from modelway.providers.bedrock.answering import Frame

SERVICE = "bedrock"


class Account:
    """Somebody at AWS. `region` is the default of their settings, "" where there is none.

    `find` looks for credentials once they are needed: in the end it asks the machine's own service.
    """

    def __init__(self, find: Callable[[], Credentials | None], region: str) -> None:
        self._find = find
        self._credentials: Credentials | None = None
        self.region = region

    @classmethod
    def of_this_machine(cls) -> Account:
        """The one that AWS's own tools would take: variables, files, single sign-on, the machine's role."""
        session = Session()
        try:
            return cls(session.get_credentials, session.get_config_variable("region") or "")
        except BotoCoreError as error:
            raise SignInRequired(f"AWS's settings cannot be used: {error}") from error

    @property
    def has_credentials(self) -> bool:
        """Whether any have been found."""
        return self._credentials is not None

    def sign(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, region: str
    ) -> dict[str, str]:
        """The headers with a signature (version 4); call it in a thread: it may wait for credentials."""
        request = AWSRequest(method=method, url=url, data=body, headers=dict(headers))
        SigV4Auth(self._fresh_credentials(), SERVICE, region).add_auth(request)
        return {name.lower(): str(value) for name, value in request.headers.items()}

    def _fresh_credentials(self) -> ReadOnlyCredentials:
        try:
            self._credentials = self._credentials or self._find()
            if self._credentials is not None:
                return self._credentials.get_frozen_credentials()
        except BotoCoreError as error:
            raise SignInRequired(f"AWS gives no credentials: {error}") from error
        raise SignInRequired(
            "there are no AWS credentials here",
            hint="sign in with AWS's own tools, or set AWS_BEARER_TOKEN_BEDROCK",
        )

    def frames(self, max_bytes: int) -> Frames:
        """A reader of one event stream."""
        return Frames(max_bytes)


class Frames:
    """Takes an event stream (application/vnd.amazon.eventstream) apart."""

    def __init__(self, max_bytes: int) -> None:
        self._buffer = EventStreamBuffer()
        self._max_bytes = max_bytes
        self._held = 0

    def feed(self, chunk: bytes) -> list[Frame]:
        """Take bytes, cut anywhere, and give the frames that they complete."""
        self._buffer.add_data(chunk)
        self._held += len(chunk)
        found: list[Frame] = []
        try:
            for message in self._buffer:
                headers = {name: str(value) for name, value in message.headers.items()}
                found.append(Frame(headers, bytes(message.payload)))
                self._held = 0
        except ParserError as error:
            raise UpstreamProtocolError(f"the upstream's event stream is damaged: {error}") from error
        if self._held > self._max_bytes:
            raise UpstreamProtocolError(
                f"the upstream sent an event of more than {self._max_bytes} bytes", code="upstream_too_large"
            )
        return found
