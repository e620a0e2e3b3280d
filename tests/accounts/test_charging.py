"""What is written down of answers: once, with the turn, whatever becomes of it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import aclosing, closing
from pathlib import Path

import pytest

from modelway.accounts import Accounts, Size
from modelway.config import PriceSettings, RouteSettings, Settings
from modelway.conversations import Conversations, Turn
from modelway.conversations.spending import Spending
from modelway.errors import (
    ConversationBusy,
    InvalidRequest,
    ModelNotFound,
    StoreUnavailable,
    UpstreamProtocolError,
)
from modelway.gateway import Gateway
from modelway.prices import Prices
from modelway.types import Caller, ChatRequest, Completion, Finish, Rules, TextDelta, Usage
from tests.conversations.talk import asking, complete, open_store
from tests.conversations.test_failures import full_disk
from tests.polling import until
from tests.scripted import Scripted
from tests.serving import gateway_of, quick_settings

pytestmark = pytest.mark.anyio

ALICE = Caller("alice", Rules(daily_budget=10**9))
PRICES = Prices({"*": PriceSettings(input=1.0, output=1.0)})
NANOS_A_TOKEN = 1000


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Conversations]:
    async with aclosing(open_store(tmp_path, lease_s=0.3, wait_s=0.2, checkpoint_s=0.01)) as opened:
        yield opened


async def spent(store: Conversations) -> list[Spending]:
    return list(await store.callers.usage("", "2000-01-01", "9999-12-31"))


async def costs_are_noted(folder: Path) -> bool:
    """Whether a checkpoint has told who pays."""
    with closing(sqlite3.connect(folder / "kept" / "conversations.sqlite3")) as database:
        return bool(database.execute("SELECT 1 FROM costs").fetchone())


async def billed(store: Conversations, accounts: Accounts, *, stream: bool = False) -> Turn:
    """An open turn of alice's, which somebody answers."""
    asked = asking("talk", "x" * 40)
    request = ChatRequest(messages=asked.messages, conversation_id="talk", stream=stream)
    turn = await store.open_turn(ALICE.name, request)
    permit = accounts.admit(ALICE, Size())
    turn.bill = accounts.bill(ALICE, permit, "P", "m", turn.request)
    return turn


@pytest.mark.parametrize("end", ["finish", "interrupt"])
async def test_a_turn_is_charged_in_the_transaction_that_ends_it(store: Conversations, end: str) -> None:
    accounts = Accounts(store.callers, PRICES)
    turn = await billed(store, accounts)
    turn.record(TextDelta(text="y" * 20))
    if end == "finish":
        turn.record(Finish(usage=Usage(7, 3)))
        await turn.finish("P", "m")
        expected = (10, 0)
    else:
        turn.interrupt("P", "m")
        turn.interrupt("P", "m")
        expected = (14 + 5, 1)
    await store.ready()
    (line,) = await spent(store)
    assert (line.nanos // NANOS_A_TOKEN, line.estimated) == expected
    assert line.requests == 1
    (shown,) = (await store.show(ALICE.name, "talk")).turns
    assert shown.cost == line.nanos / 1e9
    assert accounts.today() == line.day


async def test_what_a_turn_costs_is_not_said_where_nobody_knows_the_price(store: Conversations) -> None:
    turn = await billed(store, Accounts(store.callers, Prices({})))
    turn.record(TextDelta(text="y" * 20))
    turn.record(Finish(usage=Usage(7, 3)))
    await turn.finish("P", "m")
    (line,) = await spent(store)
    assert (line.unpriced, line.nanos, line.input_tokens, line.output_tokens) == (1, 0, 7, 3)
    (shown,) = (await store.show(ALICE.name, "talk")).turns
    assert shown.cost is None


@pytest.mark.parametrize(
    "usage",
    [Usage(-(10**9), 5), Usage(5, -(10**9)), Usage(5, 10**25), Usage(5, 5, cached_tokens=-(10**9))],
    ids=["asked", "written", "huge", "cached"],
)
async def test_tokens_that_cannot_be_are_guessed_and_give_nothing_back(
    store: Conversations, usage: Usage
) -> None:
    accounts = Accounts(store.callers, PRICES)
    turn = await billed(store, accounts)
    turn.record(TextDelta(text="y" * 20))
    turn.record(Finish(usage=usage))
    await turn.finish("P", "m")
    (line,) = await spent(store)
    assert (line.nanos // NANOS_A_TOKEN, line.estimated) == (14 + 5, 1)
    (shown,) = (await store.show(ALICE.name, "talk")).turns
    assert (shown.status, shown.usage) == ("done", None)


async def test_a_turn_that_was_taken_over_is_charged_once(tmp_path: Path, store: Conversations) -> None:
    accounts = Accounts(store.callers, PRICES)
    turn = await billed(store, accounts, stream=True)
    turn.record(TextDelta(text="y" * 20))
    await until(lambda: costs_are_noted(tmp_path))
    with closing(sqlite3.connect(tmp_path / "kept" / "conversations.sqlite3")) as database, database:
        database.execute("UPDATE conversations SET lease_until = 0")
    async with aclosing(open_store(tmp_path, wait_s=5.0)) as other:
        again = await other.open_turn(ALICE.name, asking("talk", "and then?"))
        (line,) = await spent(other)
        assert (line.provider, line.model, line.estimated, line.output_tokens) == ("P", "m", 1, 5)
        turn.record(Finish(usage=Usage(7, 3)))
        with pytest.raises(ConversationBusy):
            await turn.finish("P", "m")
        again.interrupt()
        assert await spent(other) == [line]


async def test_a_turn_of_a_conversation_that_was_deleted_meanwhile_is_charged(store: Conversations) -> None:
    accounts = Accounts(store.callers, PRICES)
    turn = await billed(store, accounts)
    await store.delete(ALICE.name, "talk")
    turn.record(Finish(usage=Usage(7, 3)))
    with pytest.raises(ConversationBusy):
        await turn.finish("P", "m")
    (line,) = await spent(store)
    assert line.nanos == 10 * NANOS_A_TOKEN


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "not-kept"])
async def test_each_who_has_said_a_part_of_an_answer_is_charged_for_it(tmp_path: Path, *, kept: bool) -> None:
    reset = UpstreamProtocolError("cut", code="upstream_reset")
    one = Scripted("One", [TextDelta(text="x" * 400), reset])
    two = Scripted("Two", [TextDelta(text="y"), Finish(usage=Usage(120, 30))])
    route = RouteSettings(candidates=("One", "Two"), on_break="continue")
    gateway = gateway_of([one, two], tmp_path, Settings(provider="One", routes={"best": route}))
    gateway.accounts.prices = PRICES
    asked = asking("talk" if kept else "", "hi")
    request = ChatRequest(
        messages=asked.messages, conversation_id=asked.conversation_id, model="best", stream=True
    )
    async with aclosing(gateway):
        async with aclosing(await gateway.answer(request, ALICE)) as answer:
            assert (await answer.collect()).text == "x" * 400 + "y"
        await gateway.accounts.refresh()
        first, second = await spent(gateway.conversations)
        assert (first.provider, first.input_tokens, first.output_tokens, first.estimated) == (
            "One",
            5,
            100,
            1,
        )
        assert (second.provider, second.input_tokens, second.output_tokens, second.estimated) == (
            "Two",
            120,
            30,
            0,
        )
        assert answer.cost == 255 * NANOS_A_TOKEN / 1e9
        today = gateway.accounts.today()
        assert gateway.accounts._account(ALICE).spent.on(today)[0] == 255 * NANOS_A_TOKEN
        if kept:
            (turn,) = (await gateway.conversations.show(ALICE.name, "talk")).turns
            assert turn.cost == answer.cost


async def test_what_is_not_kept_is_written_down_at_the_latest_at_the_end(store: Conversations) -> None:
    accounts = Accounts(store.callers, PRICES)
    for _ in range(3):
        bill = accounts.bill(ALICE, None, "P", "m", ChatRequest(messages=()))
        bill.settle_apart(Completion(choices=(), usage=Usage(1, 1)))
        bill.settle_apart(Completion(choices=(), usage=Usage(1, 1)))
    assert await spent(store) == []
    await accounts.aclose()
    (line,) = await spent(store)
    assert (line.requests, line.nanos) == (3, 6 * NANOS_A_TOKEN)


async def test_what_cannot_be_written_down_now_is_not_forgotten(tmp_path: Path, store: Conversations) -> None:
    accounts = Accounts(store.callers, PRICES)
    accounts.expect([ALICE])
    accounts.charge(ALICE, None, "P", "m", Usage(5, 5))
    path = tmp_path / "kept" / "conversations.sqlite3"
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        path.rename(path.with_suffix(".away"))
        with pytest.raises(StoreUnavailable):
            await accounts.refresh()
        path.with_suffix(".away").rename(path)
        other.rollback()
    await accounts.refresh()
    (line,) = await spent(store)
    assert line.nanos == 10 * NANOS_A_TOKEN
    await accounts.aclose()
    assert len(await spent(store)) == 1


async def test_days_are_of_utc(store: Conversations) -> None:
    now = 86_400 * 20_000 - 1.0
    accounts = Accounts(store.callers, PRICES, clock=lambda: now)
    before = accounts.today()
    accounts.charge(ALICE, None, "P", "m", Usage(1, 0))
    now += 1
    assert accounts.today() > before
    accounts.charge(ALICE, None, "P", "m", Usage(1, 0))
    await accounts.aclose()
    assert [line.day for line in await spent(store)] == [before, accounts.today()]


async def asked(gateway: Gateway, request: ChatRequest) -> None:
    async with aclosing(await gateway.answer(request, ALICE)) as answer:
        await answer.collect()


async def test_whatever_becomes_of_a_request_it_counts_as_running_no_more(tmp_path: Path) -> None:
    never = asyncio.Event()
    broken = UpstreamProtocolError("cut", code="upstream_reset")
    local = Scripted("Local", [broken], [never], [TextDelta(text="x"), never], [TextDelta(text="x"), broken])
    gateway = gateway_of([local], tmp_path, quick_settings(provider="Local"))
    message = asking("", "hi").messages
    plain, kept = ChatRequest(messages=message), ChatRequest(messages=message, conversation_id="talk")
    async with aclosing(gateway):
        account = gateway.accounts._account(ALICE)
        for request in (plain, kept):
            local.scripts = [[broken]]
            with pytest.raises(UpstreamProtocolError):
                await asked(gateway, request)
            assert account.running == 0

            local.scripts = [[never]]
            waiting = asyncio.create_task(asked(gateway, request))
            await until(lambda: account.running)
            waiting.cancel()
            await asyncio.wait([waiting])
            assert account.running == 0

            local.scripts = [[TextDelta(text="x"), never]]
            answer = await gateway.answer(request, ALICE)
            assert account.running == 1
            if request is kept:
                with pytest.raises(ConversationBusy):
                    await asked(gateway, request)
                assert account.running == 1
            await answer.aclose()
            await answer.aclose()
            assert account.running == 0

            local.scripts = [[TextDelta(text="x"), broken]]
            with pytest.raises(UpstreamProtocolError):
                await asked(gateway, request)
            assert account.running == 0
        with pytest.raises(InvalidRequest):
            await asked(gateway, ChatRequest(messages=message, after_turn="turn_0000"))
        with pytest.raises(ModelNotFound):
            await asked(gateway, ChatRequest(messages=message, model="nope"))
        assert account.running == 0


async def ended_in_vain(turn: Turn, end: str) -> None:
    """End a turn whose end cannot be written."""
    match end:
        case "finish":
            turn.record(Finish(usage=Usage(7, 3)))
            with pytest.raises(StoreUnavailable):
                await turn.finish("P", "m")
        case "fail" | "cut":
            await turn.fail(UpstreamProtocolError("cut"), "P", "m")
        case "cancelled":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await turn.fail(UpstreamProtocolError("cut"), "P", "m")
        case _:
            turn.interrupt("P", "m")


@pytest.mark.parametrize(
    ("end", "noted"),
    [("finish", True), ("fail", False), ("cut", True), ("cancelled", False), ("interrupt", False)],
)
async def test_a_turn_whose_end_could_not_be_written_is_charged_once_when_that_can_be_done(
    tmp_path: Path, end: str, noted: bool
) -> None:
    async with aclosing(open_store(tmp_path, lease_s=0.3, wait_s=5.0, checkpoint_s=0.01)) as store:
        turn = await billed(store, Accounts(store.callers, PRICES))
        if end != "fail":
            turn.record(TextDelta(text="y" * 20))
        if noted:
            await until(lambda: costs_are_noted(tmp_path))
        with full_disk():
            await ended_in_vain(turn, end)
            with pytest.raises(StoreUnavailable):
                await store.ready()
        await complete(await store.open_turn(ALICE.name, asking("talk", "and then?")), "that")

        async def charged() -> bool:
            return bool(await spent(store))

        await until(charged)
        (line,) = await spent(store)
        assert (line.caller, line.requests, line.nanos > 0) == (ALICE.name, 1, True)
    async with aclosing(open_store(tmp_path)) as again:
        assert await spent(again) == [line]


@pytest.mark.parametrize("end", ["finish", "interrupt", "at the end", "not kept"])
async def test_what_can_never_be_written_down_is_told_of_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, end: str
) -> None:
    store = open_store(tmp_path)
    accounts = Accounts(store.callers, PRICES)
    turn = await billed(store, accounts)
    turn.record(TextDelta(text="y" * 20))
    with full_disk():
        if end == "not kept":
            bill = accounts.bill(ALICE, None, "P", "m", ChatRequest(messages=()))
            bill.settle_apart(Completion(choices=(), usage=Usage(14, 5)))
            turn.bill = None
        elif end != "at the end":
            await ended_in_vain(turn, end)
        await accounts.aclose()
        await store.aclose()
    (told,) = [message for message in caplog.messages if message.startswith("not written down")]
    sum = 10 if end == "finish" else 19
    assert f"alice spent {sum * NANOS_A_TOKEN / 1e9:.6f} dollars" in told
    assert told.endswith("of P/m")
