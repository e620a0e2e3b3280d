"""The other ways to sign in to Copilot, and where the secret is kept."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked, PasswordDeleteError
from msgspec.structs import replace

from modelway.errors import GatewayError, ProviderNotConfigured, SignInRequired, UpstreamRefusedCredential
from modelway.providers.copilot import browser
from modelway.providers.copilot.access_tokens import AccessTokens
from modelway.providers.copilot.device import begin_at_github, token_of_github
from modelway.providers.copilot.profiles import PROFILES, Authority
from modelway.providers.copilot.sign_ins import SignIn, SignIns
from modelway.providers.copilot.vault import VaultError, system_vault
from modelway.providers.http import HTTPClient
from tests.canary import key
from tests.fake_m365 import ACCOUNT, CLIENT_ID, GITHUB_TOKEN, TENANT, FakeM365, access, refresh
from tests.polling import until

pytestmark = pytest.mark.anyio
WORKIQ = PROFILES["workiq"]
AT_GITHUB = "https://github.com"


def authority(m365: FakeM365) -> Authority:
    return Authority(m365.root, TENANT, CLIENT_ID)


class Browser:
    """Follows the sign-in as a person would."""

    def __init__(self, m365: FakeM365, http: HTTPClient) -> None:
        self._m365 = m365
        self._http = http
        self.page: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.landing = ""

    def show(self, page: str) -> None:
        self.page.set_result(page)
        self.landing = self._m365.enter(page)

    async def get(self, url: str) -> tuple[int, str]:
        response = await self._http.request("GET", url, headers={})
        async with aclosing(response):
            return response.status, (await response.body()).decode()


class TestBrowser:
    async def test_the_code_of_the_page_is_exchanged_with_its_proof(
        self, m365: FakeM365, http: HTTPClient
    ) -> None:
        person = Browser(m365, http)
        signing = asyncio.create_task(
            browser.sign_in(http, authority(m365), WORKIQ, show=person.show, now=lambda: 1000.0)
        )
        page = await person.page
        assert "code_verifier" not in page
        assert m365.entered["redirect_uri"].startswith("http://localhost:")
        assert m365.entered["scope"] == WORKIQ.scope
        status, text = await person.get(person.landing)
        assert (status, "signed in" in text) == (200, True)
        sign_in = await signing
        assert sign_in.username == ACCOUNT["preferred_username"]
        assert (sign_in.account, sign_in.refresh_token) == ("tenant-1.user-1", refresh(1))

    async def test_a_page_that_did_not_begin_here_is_turned_away(
        self, m365: FakeM365, http: HTTPClient
    ) -> None:
        person = Browser(m365, http)
        signing = asyncio.create_task(browser.sign_in(http, authority(m365), WORKIQ, show=person.show))
        await person.page
        root = person.landing.partition("?")[0]
        for query in ("?code=code-1&state=forged", "?code=code-1", "?error=access_denied&state=x"):
            assert (await person.get(root + query))[0] == 400
        assert (await person.get(f"{root}favicon.ico"))[0] == 404
        assert not m365.forms
        await person.get(person.landing)
        assert (await signing).refresh_token == refresh(1)

    async def test_a_refusal_on_the_page_is_told(self, m365: FakeM365, http: HTTPClient) -> None:
        person = Browser(m365, http)
        signing = asyncio.create_task(browser.sign_in(http, authority(m365), WORKIQ, show=person.show))
        await person.page
        declined = person.landing.replace("code=code-1", "error=access_denied")
        assert "refused" in (await person.get(declined))[1]
        with pytest.raises(SignInRequired, match="declined"):
            await signing

    async def test_a_code_that_is_not_taken_is_told(self, m365: FakeM365, http: HTTPClient) -> None:
        person = Browser(m365, http)
        signing = asyncio.create_task(browser.sign_in(http, authority(m365), WORKIQ, show=person.show))
        await person.page
        await person.get(person.landing.replace("code-1", "code-2"))
        with pytest.raises(UpstreamRefusedCredential, match="invalid_grant, AADSTS501481"):
            await signing

    async def test_nobody_comes(self, m365: FakeM365, http: HTTPClient) -> None:
        with pytest.raises(SignInRequired, match="nobody has signed in in the browser"):
            await browser.sign_in(http, authority(m365), WORKIQ, show=lambda page: None, wait_s=0.01)

    async def test_nothing_is_shown_without_a_registered_application(
        self, m365: FakeM365, http: HTTPClient
    ) -> None:
        with pytest.raises(ProviderNotConfigured):
            await browser.sign_in(http, Authority(m365.root, "", ""), WORKIQ, show=pytest.fail)

    async def test_a_request_that_is_none_does_no_harm(self, m365: FakeM365, http: HTTPClient) -> None:
        person = Browser(m365, http)
        signing = asyncio.create_task(browser.sign_in(http, authority(m365), WORKIQ, show=person.show))
        await person.page
        port = int(m365.entered["redirect_uri"].rpartition(":")[2])
        for sent in (b"\x00\xff\r\n\r\n", b"GET", b"GET / HTTP/1.1\r\n" + b"a" * 20_000):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            writer.write_eof()
            answer = await reader.read()
            assert b" 200 " not in answer
            writer.close()
            await writer.wait_closed()
        await person.get(person.landing)
        await signing


class TestGitHubsDeviceFlow:
    @pytest.fixture
    def github(self, m365: FakeM365) -> Authority:
        return Authority(m365.root, "", "own-app")

    async def test_a_pending_sign_in_is_waited_for(
        self, m365: FakeM365, http: HTTPClient, github: Authority
    ) -> None:
        m365.polls = ["authorization_pending", "slow_down"]
        m365.interval = 5
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)

        prompt = await begin_at_github(http, github)
        assert "https://github.com/login/device" in prompt.instruction
        assert await token_of_github(http, github, prompt, sleep=sleep) == GITHUB_TOKEN
        assert slept == [5, 5, 10]
        assert m365.forms[0]["client_id"] == "own-app"
        assert all("client_secret" not in form for form in m365.forms)

    @pytest.mark.parametrize(
        ("word", "kind", "told"),
        [
            ("access_denied", SignInRequired, "declined"),
            ("expired_token", SignInRequired, "expired"),
            ("incorrect_device_code", SignInRequired, "expired"),
            ("device_flow_disabled", UpstreamRefusedCredential, "device_flow_disabled"),
        ],
    )
    async def test_a_refusal_with_status_200_is_one(
        self,
        m365: FakeM365,
        http: HTTPClient,
        github: Authority,
        word: str,
        kind: type[GatewayError],
        told: str,
    ) -> None:
        prompt = await begin_at_github(http, github)
        m365.polls = [word]
        with pytest.raises(kind, match=told):
            await token_of_github(http, github, replace(prompt, interval=0.0))

    async def test_nothing_is_asked_without_an_application(self, http: HTTPClient) -> None:
        with pytest.raises(ProviderNotConfigured, match="no application"):
            await begin_at_github(http, Authority(AT_GITHUB, "", ""))


class FakeVault:
    """A keyring in memory. It takes secrets up to `limit`, and nothing while it is `locked`."""

    def __init__(self, limit: int = 100) -> None:
        self.secrets: dict[str, str] = {}
        self.limit = limit
        self.locked = False

    def get(self, name: str) -> str:
        self._check()
        return self.secrets.get(name, "")

    def put(self, name: str, secret: str) -> None:
        self._check()
        if len(secret) > self.limit:
            raise VaultError("too long")
        self.secrets[name] = secret

    def remove(self, name: str) -> None:
        self._check()
        self.secrets.pop(name, None)

    def _check(self) -> None:
        if self.locked:
            raise VaultError("locked")


class TestKeyring:
    @pytest.fixture
    def vault(self) -> FakeVault:
        return FakeVault()

    @pytest.fixture
    def sign_ins(self, tmp_path: Path, vault: FakeVault) -> SignIns:
        return SignIns(tmp_path / "credentials", lambda: vault)

    @pytest.fixture
    def sign_in(self, m365: FakeM365) -> SignIn:
        return SignIn(
            transport="workiq", authority=authority(m365), account="ada", refresh_token=refresh(0), at=1.0
        )

    async def test_the_secret_is_in_the_keyring_and_not_in_the_file(
        self, tmp_path: Path, vault: FakeVault, sign_ins: SignIns, sign_in: SignIn
    ) -> None:
        assert sign_ins.save(sign_in).kept == "keyring"
        assert refresh(0) not in (tmp_path / "credentials/copilot-workiq.json").read_text()
        found = sign_ins.load("workiq")
        assert found is not None
        assert found.refresh_token == ""
        assert sign_ins.secret_of(found) == refresh(0)
        assert sign_ins.remove("workiq")
        assert vault.secrets == {}

    async def test_two_data_directories_do_not_share_a_secret(
        self, tmp_path: Path, vault: FakeVault, sign_ins: SignIns, sign_in: SignIn
    ) -> None:
        first = sign_ins.save(sign_in)
        others = SignIns(tmp_path / "others", lambda: vault)
        second = others.save(replace(sign_in, refresh_token=refresh("theirs")))
        assert (sign_ins.secret_of(first), others.secret_of(second)) == (refresh(0), refresh("theirs"))

    @pytest.mark.parametrize("trouble", ["too long", "locked", "none"])
    async def test_what_the_keyring_does_not_take_is_in_the_file(
        self, tmp_path: Path, vault: FakeVault, sign_in: SignIn, trouble: str
    ) -> None:
        vault.limit = 3 if trouble == "too long" else 100
        vault.locked = trouble == "locked"
        sign_ins = SignIns(tmp_path / "credentials", lambda: None if trouble == "none" else vault)
        assert sign_ins.save(sign_in) == sign_in
        file = tmp_path / "credentials/copilot-workiq.json"
        assert refresh(0) in file.read_text()
        assert os.name != "posix" or file.stat().st_mode & 0o077 == 0

    async def test_a_keyring_that_no_longer_gives_it_asks_for_a_sign_in(
        self, vault: FakeVault, sign_ins: SignIns, sign_in: SignIn
    ) -> None:
        kept = sign_ins.save(sign_in)
        vault.locked = True
        with pytest.raises(SignInRequired, match="locked"):
            sign_ins.secret_of(kept)
        vault.locked = False
        vault.secrets.clear()
        with pytest.raises(SignInRequired, match="no longer"):
            sign_ins.secret_of(kept)

    async def test_the_rotated_refresh_token_is_in_the_keyring(
        self, m365: FakeM365, http: HTTPClient, vault: FakeVault, sign_ins: SignIns, sign_in: SignIn
    ) -> None:
        sign_ins.save(sign_in)
        tokens = AccessTokens(WORKIQ, authority(m365), http=http, sign_ins=sign_ins)
        assert list(await asyncio.gather(tokens.token(), tokens.token())) == [access(1), access(1)]
        assert m365.issued == 1
        assert list(vault.secrets.values()) == [refresh(1)]
        assert await tokens.token(refused=access(1)) == access(2)
        assert list(vault.secrets.values()) == [refresh(2)]

    async def test_a_refresh_by_another_process_is_followed(
        self, m365: FakeM365, http: HTTPClient, vault: FakeVault, sign_ins: SignIns, sign_in: SignIn
    ) -> None:
        sign_ins.save(sign_in)
        tokens = AccessTokens(WORKIQ, authority(m365), http=http, sign_ins=sign_ins)
        m365.hold_refresh = asyncio.Event()
        asking = asyncio.create_task(tokens.token())
        await until(lambda: m365.forms)
        m365.refresh_token = refresh("theirs")
        sign_ins.save(replace(sign_in, refresh_token=refresh("theirs"), renewed=1))
        m365.hold_refresh.set()
        assert await asking == access(1)

    async def test_a_revoked_sign_in_leaves_nothing_in_the_keyring(
        self, m365: FakeM365, http: HTTPClient, vault: FakeVault, sign_ins: SignIns, sign_in: SignIn
    ) -> None:
        sign_ins.save(sign_in)
        m365.refusal = "invalid_grant"
        tokens = AccessTokens(WORKIQ, authority(m365), http=http, sign_ins=sign_ins)
        with pytest.raises(SignInRequired, match="has ended"):
            await tokens.token()
        assert vault.secrets == {}


class Memory(KeyringBackend):
    """A keyring of the package's own kind. With this priority nobody gets it who does not ask for it."""

    priority = -2

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.secrets: dict[tuple[str, str], str] = {}
        self.locked = False

    def get_password(self, service: str, username: str) -> str | None:
        self._check()
        return self.secrets.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._check()
        self.secrets[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self._check()
        if self.secrets.pop((service, username), None) is None:
            raise PasswordDeleteError("not there")

    def _check(self) -> None:
        if self.locked:
            raise KeyringLocked("locked")


@pytest.fixture
def memory() -> Iterator[Memory]:
    before, memory = keyring.get_keyring(), Memory()
    keyring.set_keyring(memory)
    yield memory
    keyring.set_keyring(before)


async def test_the_systems_keyring_keeps_gives_and_forgets(memory: Memory) -> None:
    vault = system_vault()
    assert vault is not None
    vault.put("name", key("secret"))
    assert vault.get("name") == key("secret")
    vault.remove("name")
    vault.remove("name")
    assert vault.get("name") == ""
    memory.locked = True
    for use in (lambda: vault.get("name"), lambda: vault.put("name", "x"), lambda: vault.remove("name")):
        with pytest.raises(VaultError, match="KeyringLocked"):
            use()


async def test_a_keyring_that_keeps_nothing_is_none() -> None:
    assert system_vault() is None
