"""Access tokens for Google Cloud, through the library google-auth, which is an extra."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import msgspec

from modelway.errors import (
    GatewayError,
    ProviderNotConfigured,
    SignInRequired,
    UpstreamRefusedCredential,
    UpstreamUnreachable,
)

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
NO_EXTRA = "Vertex AI needs the library google-auth"
INSTALL = "install the extra: pip install 'modelway[vertex]'"
SIGN_IN = (
    "run `gcloud auth application-default login`, set GOOGLE_APPLICATION_CREDENTIALS, "
    "or name a service account's file in [providers.Vertex] api_key_file"
)


def has_extra() -> bool:
    """Whether what fetches tokens is installed."""
    try:
        return find_spec("google.auth") is not None and find_spec("requests") is not None
    except ModuleNotFoundError:
        return False


class GoogleTokens:
    """The tokens of one credential: a file's, or else the application default credentials.

    `read_file` gives the content of the file that the user named, "" where there is none. `project` pays
    for the calls. A token is fetched in a thread, once for all who wait for it, and kept while it is good.
    """

    def __init__(self, read_file: Callable[[], str], project: str) -> None:
        self._read_file = read_file
        self._project = project
        self._credentials: Any = None
        self._fetching: asyncio.Task[str] | None = None

    async def token(self) -> str:
        """A token that is good for the next minutes.

        Raises ProviderNotConfigured, SignInRequired, UpstreamRefusedCredential or UpstreamUnreachable.
        """
        if self._fetching is None:
            if self._credentials is not None and self._credentials.valid:
                return str(self._credentials.token)
            self._fetching = asyncio.create_task(asyncio.to_thread(self._fetch))
            self._fetching.add_done_callback(self._fetched)
        # Who goes away takes the token from nobody else.
        return await asyncio.shield(self._fetching)

    async def aclose(self) -> None:
        """Wait for nobody any more."""
        if self._fetching is not None:
            self._fetching.cancel()

    def _fetched(self, task: asyncio.Task[str]) -> None:
        self._fetching = None
        if not task.cancelled():
            # Whoever waits gets it too; where all have gone nobody is to be told.
            task.exception()

    def _fetch(self) -> str:
        """Fetch a token, in a thread."""
        if not has_extra():
            raise ProviderNotConfigured(NO_EXTRA, hint=INSTALL)
        exceptions = import_module("google.auth.exceptions")
        requests = import_module("requests")
        transport = import_module("google.auth.transport.requests")
        try:
            with requests.Session() as connection:
                credentials = self._credentials or self._load()
                credentials.refresh(transport.Request(connection))
        except exceptions.DefaultCredentialsError as error:
            raise SignInRequired("there are no credentials for Google Cloud here", hint=SIGN_IN) from error
        except exceptions.TransportError as error:
            raise UpstreamUnreachable("Google's token server cannot be reached", sent=False) from error
        except exceptions.GoogleAuthError as error:
            raise _refused(error) from error
        self._credentials = credentials
        return str(credentials.token)

    def _load(self) -> Any:
        content = self._read_file()
        if not content:
            auth = import_module("google.auth")
            credentials, _ = auth.default(scopes=SCOPES, quota_project_id=self._project)
            return credentials
        try:
            known = msgspec.json.decode(content, type=dict[str, Any])
            if known.get("type") == "authorized_user":
                users = import_module("google.oauth2.credentials")
                return users.Credentials.from_authorized_user_info(known, scopes=SCOPES)
            accounts = import_module("google.oauth2.service_account")
            return accounts.Credentials.from_service_account_info(known, scopes=SCOPES)
        except ValueError as error:
            raise ProviderNotConfigured(
                "the file of [providers.Vertex] api_key_file holds no credentials of Google's",
                hint="name the JSON key of a service account",
            ) from error


def _refused(error: Any) -> GatewayError:
    """Google's word for why it gives no token, without the rest of what it says."""
    reply = error.args[1] if len(error.args) > 1 else None
    word = reply.get("error") if isinstance(reply, dict) else None
    said = f": {word}" if isinstance(word, str) else ""
    return UpstreamRefusedCredential(f"Google gives no token for these credentials{said}", hint=SIGN_IN)
