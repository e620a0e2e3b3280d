"""Signing in to Copilot: the device flow, refreshes, and the files that keep a sign-in."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest
from msgspec.structs import replace

from modelway.config import CopilotSettings
from modelway.errors import (
    GatewayError,
    ProviderNotConfigured,
    SignInRequired,
    UpstreamProtocolError,
    UpstreamRefusedCredential,
)
from modelway.providers.copilot.access_tokens import AccessTokens
from modelway.providers.copilot.device import begin, wait
from modelway.providers.copilot.profiles import (
    PROFILES,
    Authority,
    authority_of,
    base_url_of,
    time_zone_of,
)
from modelway.providers.copilot.sign_ins import SignIn, SignIns
from modelway.providers.http import HTTPClient
from tests.fake_m365 import ACCOUNT, CLIENT_ID, TENANT, FakeM365, access, refresh
from tests.polling import until

pytestmark = pytest.mark.anyio
WORKIQ = PROFILES["workiq"]


def authority(m365: FakeM365) -> Authority:
    return Authority(m365.root, TENANT, CLIENT_ID)


async def signed_in(m365: FakeM365, http: HTTPClient, slept: list[float] | None = None) -> SignIn:
    """The whole flow; what it sleeps is noted instead."""

    async def sleep(seconds: float) -> None:
        if slept is not None:
            slept.append(seconds)

    prompt = await begin(http, authority(m365), WORKIQ)
    return await wait(http, authority(m365), WORKIQ, prompt, sleep=sleep, now=lambda: 1000.0)


class TestDeviceFlow:
    async def test_a_pending_sign_in_is_waited_for(self, m365: FakeM365, http: HTTPClient) -> None:
        m365.polls = ["authorization_pending", "authorization_pending"]
        sign_in = await signed_in(m365, http)
        assert sign_in.username == ACCOUNT["preferred_username"]
        assert sign_in.account == "tenant-1.user-1"
        assert sign_in.refresh_token == refresh(1)
        assert sign_in.at == 1000.0
        first, *polls = m365.forms
        assert first["scope"].split() == [*WORKIQ.scopes, "offline_access", "openid", "profile"]
        assert len(polls) == 3
        assert {poll["device_code"] for poll in polls} == {"device-1"}

    async def test_the_person_reads_the_authoritys_own_sentence(
        self, m365: FakeM365, http: HTTPClient
    ) -> None:
        prompt = await begin(http, authority(m365), WORKIQ)
        assert "ABCD-EFGH" in prompt.instruction
        assert prompt.verification_uri in replace(prompt, message="").instruction

    async def test_slow_down_adds_five_seconds_for_good(self, m365: FakeM365, http: HTTPClient) -> None:
        m365.interval = 3
        m365.polls = ["slow_down", "authorization_pending"]
        slept: list[float] = []
        await signed_in(m365, http, slept)
        assert slept == [3, 8, 8]

    @pytest.mark.parametrize(
        ("word", "told"),
        [
            ("authorization_declined", "declined"),
            ("access_denied", "declined"),
            ("expired_token", "expired"),
            ("bad_verification_code", "expired"),
        ],
    )
    async def test_what_the_person_did_not_do_is_told(
        self, m365: FakeM365, http: HTTPClient, word: str, told: str
    ) -> None:
        m365.polls = [word]
        with pytest.raises(SignInRequired, match=told) as raised:
            await signed_in(m365, http)
        assert "modelway login copilot" in raised.value.hint

    async def test_polling_ends_when_the_code_has_expired(self, m365: FakeM365, http: HTTPClient) -> None:
        m365.interval = 400
        m365.polls = ["authorization_pending"] * 9
        with pytest.raises(SignInRequired, match="expired"):
            await signed_in(m365, http)
        assert len(m365.forms) == 1 + 3

    async def test_a_refusal_names_its_number_and_nobodys_account(
        self, m365: FakeM365, http: HTTPClient
    ) -> None:
        m365.polls = ["invalid_client"]
        with pytest.raises(UpstreamRefusedCredential, match="invalid_client, AADSTS70000") as raised:
            await signed_in(m365, http)
        assert "ada" not in str(raised.value)
        assert "client_id" in raised.value.hint

    @pytest.mark.parametrize("missing", ["tenant", "client_id"])
    async def test_nothing_is_asked_without_a_registered_application(
        self, m365: FakeM365, http: HTTPClient, missing: str
    ) -> None:
        with pytest.raises(ProviderNotConfigured, match="no application"):
            await begin(http, replace(authority(m365), **{missing: ""}), WORKIQ)
        assert not m365.requests


@pytest.fixture
def sign_ins(tmp_path: Path) -> SignIns:
    return SignIns(tmp_path / "credentials")


@pytest.fixture
def sign_in(m365: FakeM365, sign_ins: SignIns) -> SignIn:
    made = SignIn(
        transport="workiq",
        authority=authority(m365),
        account="tenant-1.user-1",
        username="ada",
        refresh_token=refresh(0),
        at=1.0,
    )
    sign_ins.save(made)
    return made


@pytest.fixture
def clock() -> list[float]:
    return [1000.0]


@pytest.fixture
def tokens(m365: FakeM365, http: HTTPClient, sign_ins: SignIns, clock: list[float]) -> AccessTokens:
    return AccessTokens(WORKIQ, authority(m365), http=http, sign_ins=sign_ins, now=lambda: clock[0])


@pytest.mark.usefixtures("sign_in")
class TestRefresh:
    async def test_a_token_is_kept_until_five_minutes_before_its_end(
        self, m365: FakeM365, tokens: AccessTokens, clock: list[float]
    ) -> None:
        assert await tokens.token() == access(1)
        clock[0] += 3599 - 301
        assert await tokens.token() == access(1)
        clock[0] += 2
        assert await tokens.token() == access(2)
        assert m365.issued == 2

    async def test_the_rotated_refresh_token_is_kept(self, tokens: AccessTokens, sign_ins: SignIns) -> None:
        await tokens.token()
        kept = sign_ins.load("workiq")
        assert kept is not None
        assert kept.refresh_token == refresh(1)

    async def test_all_who_wait_share_one_refresh(self, m365: FakeM365, tokens: AccessTokens) -> None:
        m365.hold_refresh = asyncio.Event()
        waiting = [asyncio.create_task(tokens.token()) for _ in range(5)]
        await until(lambda: m365.forms)
        m365.hold_refresh.set()
        assert {await task for task in waiting} == {access(1)}
        assert m365.issued == 1

    async def test_a_refused_token_is_replaced_once_for_all_who_saw_it(
        self, m365: FakeM365, tokens: AccessTokens
    ) -> None:
        old = await tokens.token()
        assert {await tokens.token(refused=old) for _ in range(3)} == {access(2)}
        assert m365.issued == 2

    async def test_a_revoked_sign_in_ends_and_says_why(
        self, m365: FakeM365, tokens: AccessTokens, sign_ins: SignIns
    ) -> None:
        m365.refusal = "invalid_grant"
        with pytest.raises(SignInRequired, match="has ended"):
            await tokens.token()
        assert tokens.sign_in() is None
        kept = sign_ins.load("workiq")
        assert kept is not None
        assert kept.refresh_token == ""
        assert kept.ended == "invalid_grant, AADSTS70000"
        asked = len(m365.forms)
        with pytest.raises(SignInRequired, match="nobody has signed in"):
            await tokens.token()
        assert len(m365.forms) == asked

    async def test_another_process_that_refreshed_first_is_followed(
        self, m365: FakeM365, tokens: AccessTokens, sign_ins: SignIns, sign_in: SignIn
    ) -> None:
        m365.refresh_token = refresh("theirs")
        m365.hold_refresh = asyncio.Event()
        asking = asyncio.create_task(tokens.token())
        await until(lambda: m365.forms)
        sign_ins.save(replace(sign_in, refresh_token=refresh("theirs")))
        m365.hold_refresh.set()
        assert await asking == access(1)

    async def test_whoever_signs_out_meanwhile_stays_signed_out(
        self, m365: FakeM365, tokens: AccessTokens, sign_ins: SignIns
    ) -> None:
        m365.hold_refresh = asyncio.Event()
        asking = asyncio.create_task(tokens.token())
        await until(lambda: m365.forms)
        sign_ins.remove("workiq")
        m365.hold_refresh.set()
        await asking
        assert sign_ins.load("workiq") is None
        with pytest.raises(SignInRequired):
            await tokens.token()

    async def test_a_sign_in_with_another_authority_is_nobodys(
        self, m365: FakeM365, http: HTTPClient, sign_ins: SignIns
    ) -> None:
        other = replace(authority(m365), client_id="another")
        tokens = AccessTokens(WORKIQ, other, http=http, sign_ins=sign_ins)
        with pytest.raises(SignInRequired):
            await tokens.token()
        assert not m365.requests

    async def test_an_authority_that_is_down_ends_nothing(self, m365: FakeM365, tokens: AccessTokens) -> None:
        m365.refuse()
        with pytest.raises(GatewayError) as raised:
            await tokens.token()
        assert not isinstance(raised.value, SignInRequired)
        assert tokens.sign_in() is not None


class TestFiles:
    pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows has no file modes")

    async def test_only_the_user_can_read_them(self, tmp_path: Path, sign_in: SignIn) -> None:
        (path,) = (tmp_path / "credentials").iterdir()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    async def test_a_file_that_others_can_read_is_refused(
        self, tmp_path: Path, sign_ins: SignIns, sign_in: SignIn
    ) -> None:
        (path,) = (tmp_path / "credentials").iterdir()
        path.chmod(0o640)
        with pytest.raises(ProviderNotConfigured, match="others may read") as raised:
            sign_ins.load("workiq")
        assert raised.value.hint == f"run `chmod 600 {path}`"

    async def test_a_directory_that_others_can_enter_is_refused(
        self, tmp_path: Path, sign_ins: SignIns, sign_in: SignIn
    ) -> None:
        (tmp_path / "credentials").chmod(0o755)
        with pytest.raises(ProviderNotConfigured, match="others may read"):
            sign_ins.save(sign_in)

    async def test_a_damaged_file_is_not_quoted(
        self, tmp_path: Path, sign_ins: SignIns, sign_in: SignIn
    ) -> None:
        (path,) = (tmp_path / "credentials").iterdir()
        path.write_text('{"refresh_token": "secret"')
        with pytest.raises(ProviderNotConfigured, match="damaged") as raised:
            sign_ins.load("workiq")
        assert "secret" not in str(raised.value)

    async def test_what_another_process_changed_is_seen(
        self, tmp_path: Path, sign_ins: SignIns, sign_in: SignIn
    ) -> None:
        assert sign_ins.load("workiq") == sign_in
        other = SignIns(tmp_path / "credentials")
        other.save(replace(sign_in, username="grace"))
        found = sign_ins.load("workiq")
        assert found is not None
        assert found.username == "grace"
        assert other.remove("workiq")
        assert not other.remove("workiq")
        assert sign_ins.load("workiq") is None

    async def test_a_sign_in_shows_no_secret(self, sign_in: SignIn) -> None:
        assert refresh(0) not in repr(sign_in)
        assert refresh(0) not in f"{sign_in}"


class TestAddresses:
    @pytest.mark.parametrize("url", ["http://example.org", "ftp://localhost", "https://", "http://[::", "x"])
    async def test_secrets_go_nowhere_in_the_clear(self, url: str) -> None:
        with pytest.raises(ProviderNotConfigured):
            authority_of(CopilotSettings(authority=url))
        with pytest.raises(ProviderNotConfigured):
            base_url_of(WORKIQ, CopilotSettings(base_url=url))

    @pytest.mark.parametrize(
        "url", ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1", "https://a/b"]
    )
    async def test_loopback_and_https_are_taken(self, url: str) -> None:
        assert authority_of(CopilotSettings(authority=f"{url}/")).url == url

    async def test_the_time_zone_is_the_setting_or_the_systems_or_utc(self, tmp_path: Path) -> None:
        zone = tmp_path / "zoneinfo/Europe/Berlin"
        zone.parent.mkdir(parents=True)
        zone.touch()
        (tmp_path / "localtime").symlink_to(zone)
        assert time_zone_of(CopilotSettings(), tmp_path / "localtime") == "Europe/Berlin"
        assert time_zone_of(CopilotSettings(), tmp_path / "none") == "UTC"
        assert time_zone_of(CopilotSettings(time_zone="Asia/Tokyo")) == "Asia/Tokyo"


async def test_a_token_without_a_refresh_token_is_told(m365: FakeM365, http: HTTPClient) -> None:
    prompt = await begin(http, authority(m365), WORKIQ)
    m365.keeps_refresh_tokens = True
    with pytest.raises(UpstreamProtocolError, match="no refresh token"):
        await wait(http, authority(m365), WORKIQ, replace(prompt, interval=0.0))
