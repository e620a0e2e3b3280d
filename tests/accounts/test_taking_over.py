"""An answer whose server has died is gone on with, and everybody's part of it is charged once."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import aclosing
from pathlib import Path

import pytest
from msgspec.structs import replace

from modelway.accounts import Accounts, Size
from modelway.config import ConversationSettings, Settings
from modelway.conversations import Conversations, Turn
from modelway.conversations.resuming import encode_asked
from modelway.prices import Prices
from modelway.types import Caller, Finish, Rules, TextDelta, Usage
from tests.accounts.test_charging import ALICE, NANOS_A_TOKEN, PRICES, spent
from tests.conversations.talk import answer, asking, begin, complete, open_store, system, texts, user
from tests.scripted import Scripted
from tests.serving import gateway_of

pytestmark = pytest.mark.anyio
ANYBODY = Caller("bob", Rules())


async def begun(store: Conversations, prices: Prices | None = PRICES) -> Turn:
    """The second turn of a conversation under instructions, of which something has come."""
    await complete(
        await begin(store, "talk", system("be brief"), "hello", caller=ALICE.name), "a question first"
    )
    turn = await store.open_turn(
        ALICE.name, replace(asking("talk", "x" * 40), stream=True, when_left="grace")
    )
    if prices is not None:
        pay(store, turn, prices)
    await say(turn, "y" * 8, "y" * 12)
    return turn


def pay(store: Conversations, turn: Turn, prices: Prices = PRICES) -> None:
    accounts = Accounts(store.callers, prices)
    left = turn.left
    tab = left.tab if left is not None else None
    turn.bill = accounts.bill(ALICE, accounts.admit(ALICE, Size()), "P", "m", turn.request, tab)


async def say(turn: Turn, *pieces: str) -> None:
    for piece in pieces:
        turn.record(TextDelta(text=piece))
        await turn.stored()


def crash(folder: Path) -> Path:
    """What a kill would leave behind now: all files, and nobody who holds them."""
    left = folder.with_name(f"{folder.name}-again")
    shutil.copytree(folder, left)
    return left


async def taken_over(store: Conversations, id: str) -> Turn:
    turn = await store.take_over(ALICE.name, id)
    assert turn is not None
    return turn


async def test_it_is_all_there_and_goes_on_to_its_end(tmp_path: Path) -> None:
    async with aclosing(open_store(tmp_path / "a", on_crash="continue")) as store:
        turn = await begun(store)
        opened, request = turn.opened, turn.request
        folder = crash(tmp_path / "a")
        turn.interrupt()
    async with aclosing(open_store(folder, on_crash="continue")) as store:
        taken = await taken_over(store, turn.id)
        assert texts(taken.request.messages) == ["be brief", "hello", "a question first", "x" * 40]
        assert taken.request.messages == request.messages
        assert taken.left is not None
        assert taken.left.items == [TextDelta(text="y" * 8), TextDelta(text="y" * 12)]
        assert (taken.left.head.turn, taken.opened.name, taken.opened.hidden) == (turn.id, "talk", False)
        assert taken.opened.tree == opened.tree
        assert taken.opened.conversation == opened.conversation
        assert taken.opened.opened_at == opened.opened_at
        assert taken.opened.in_force == opened.in_force
        assert taken.opened.instructions == (system("be brief"),)
        await say(taken, "z")
        await complete(taken, "z")
        shown = await store.show(ALICE.name, "talk")
        assert shown.messages[-2:] == (user("x" * 40), answer("y" * 20 + "zz"))
        assert shown.turns[-1].status == "done"
        log = await store.streams.stored(ALICE.name, turn.id)
        said = [item.text for item in await log.after(0) if isinstance(item, TextDelta)]
        assert said == ["y" * 8, "y" * 12, "z", "z"]
        await complete(await begin(store, "talk", "and then?", caller=ALICE.name), "that")
        assert (await store.show(ALICE.name, "talk")).instructions == (system("be brief"),)


async def test_everybody_s_part_is_charged_once(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    charged = []
    id = ""
    for _ in range(3):
        async with aclosing(open_store(folder, on_crash="continue")) as store:
            if id:
                turn = await taken_over(store, id)
                assert turn.left is not None
                charged.append(turn.left.charged // NANOS_A_TOKEN)
                pay(store, turn)
                await say(turn, "z" * 40)
            else:
                turn = await begun(store)
                id = turn.id
            folder = crash(folder)
            turn.interrupt()
    async with aclosing(open_store(folder, on_crash="continue")) as store:
        turn = await taken_over(store, id)
        assert turn.left is not None
        assert turn.left.tab is not None
        charged.append(turn.left.charged // NANOS_A_TOKEN)
        assert turn.left.tab.paid // NANOS_A_TOKEN == sum(charged)
        asked = charged[0] - 5
        assert asked > 10, "what was asked, and five tokens of the answer"
        # Whoever goes on asks again, and is paid for what is new of the answer.
        assert charged[1:] == [asked + 10, asked + 10]
        (line,) = await spent(store)
        assert (line.caller, line.provider, line.model) == (ALICE.name, "P", "m")
        assert line.nanos == sum(charged) * NANOS_A_TOKEN
        assert (line.input_tokens, line.output_tokens) == (3 * asked, 25)
        turn.interrupt()


async def test_a_part_is_charged_although_nothing_more_was_asked(tmp_path: Path) -> None:
    async with aclosing(open_store(tmp_path / "a", on_crash="continue")) as store:
        turn = await begun(store)
        folder = crash(tmp_path / "a")
        turn.interrupt()
    charged = []
    for text in ("z" * 40, ""):
        async with aclosing(open_store(folder, on_crash="continue")) as store:
            taken = await taken_over(store, turn.id)
            if text:
                await say(taken, text)
            folder = crash(folder)
            assert taken.left is not None
            charged.append(taken.left.charged // NANOS_A_TOKEN)
            taken.interrupt()
    assert charged[1] == 10


async def test_where_nobody_pays_nothing_is_charged(tmp_path: Path) -> None:
    async with aclosing(open_store(tmp_path / "a", on_crash="continue")) as store:
        turn = await begun(store, None)
        folder = crash(tmp_path / "a")
        turn.interrupt()
    async with aclosing(open_store(folder, on_crash="continue")) as store:
        taken = await taken_over(store, turn.id)
        assert taken.left is not None
        assert (taken.left.tab, taken.left.charged) == (None, 0)
        assert not await spent(store)
        taken.record(Finish(usage=Usage()))
        taken.interrupt()


async def test_who_pays_is_noted_whenever_that_is_known(tmp_path: Path) -> None:
    async with aclosing(open_store(tmp_path / "a", on_crash="continue")) as store:
        turn = await begun(store, None)
        pay(store, turn)
        await say(turn, "z" * 4)
        folder = crash(tmp_path / "a")
        turn.interrupt()
    async with aclosing(open_store(folder, on_crash="continue")) as store:
        taken = await taken_over(store, turn.id)
        assert taken.left is not None
        assert taken.left.tab is not None
        assert taken.left.charged > 6 * NANOS_A_TOKEN
        taken.interrupt()


async def test_what_nobody_could_read_again_is_not_gone_on_with(tmp_path: Path) -> None:
    async with aclosing(open_store(tmp_path / "a", on_crash="continue")) as store:
        turn = await begin(store, "talk", "hello", caller=ALICE.name)
        folder = crash(tmp_path / "a")
        turn.interrupt()
    async with aclosing(open_store(folder, on_crash="continue")) as store:
        assert await store.take_over(ALICE.name, turn.id) is None
        (shown,) = (await store.show(ALICE.name, "talk")).turns
        assert (shown.id, shown.status) == (turn.id, "interrupted")


async def test_what_had_come_stays_where_nothing_follows(tmp_path: Path) -> None:
    asked = replace(asking("", "hello"), store=True, stream=True, echo={"a": "b"})
    async with aclosing(open_store(tmp_path / "a", on_crash="continue")) as store:
        turn = await store.open_turn(ALICE.name, asked)
        await say(turn, "half")
        folder = crash(tmp_path / "a")
        turn.interrupt()
    async with aclosing(open_store(folder, on_crash="continue")) as store:
        (await taken_over(store, turn.id)).interrupt()
        kept = (await store.turn(ALICE.name, turn.id)).turn
        assert (kept.status, kept.answer) == ("interrupted", answer("half"))


async def test_a_turn_in_the_background_waits_before_anything_has_come(tmp_path: Path) -> None:
    asked = replace(asking("", "hello"), store=True, when_left="finish", echo={"a": "b"})
    async with aclosing(open_store(tmp_path / "a", on_crash="continue")) as store:
        turn = await store.open_turn(ALICE.name, asked)
        folder = crash(tmp_path / "a")
        turn.interrupt()
    async with aclosing(open_store(folder, on_crash="continue")) as store:
        taken = await taken_over(store, turn.id)
        assert (taken.left, taken.opened.hidden) == (None, True), "it is answered from the beginning"
        assert (taken.request.echo, taken.request.messages) == (asked.echo, asked.messages)
        await say(taken, "all of it")
        await complete(taken, "")
        assert (await store.turn(ALICE.name, turn.id)).turn.answer == answer("all of it")


def test_what_cannot_be_written_down_cannot_be_gone_on_with() -> None:
    assert encode_asked(asking("c", "hello"))
    assert encode_asked(replace(asking("c", "hello"), echo={"a": object()})) == b""


async def test_a_gateway_goes_on_with_what_another_has_begun(tmp_path: Path) -> None:
    kept = ConversationSettings(on_crash="continue", checkpoint_s=0.01)
    one = Scripted("One", [TextDelta(text="half"), asyncio.Event()])
    gateway = gateway_of([one], tmp_path / "a" / "kept", Settings(provider="One", conversations=kept))
    asked = replace(asking("c", "hello"), stream=True)
    async with aclosing(gateway), aclosing(await gateway.answer(asked, Caller("bob"))) as begun:
        events = aiter(begun)
        assert await anext(events) == TextDelta(text="half")
        (open_turn,) = (await gateway.conversations.show("bob", "c")).turns
        folder = crash(tmp_path / "a")
        await events.aclose()  # type: ignore[attr-defined]
    two = Scripted("One", [TextDelta(text=" and half"), Finish(usage=Usage(9, 4))])
    settings = Settings(provider="One", conversations=kept)
    async with aclosing(gateway_of([two], folder / "kept", settings)) as again:
        turn = await again.conversations.take_over("bob", open_turn.id)
        assert turn is not None
        async with aclosing(await again.resume(turn, Caller("bob"), [])) as answered:
            assert (await answered.collect()).text == "half and half"
        [asked_for] = two.requests
        assert texts(asked_for.messages)[:2] == ["hello", "half"]
        shown = await again.conversations.show("bob", "c")
        assert texts(shown.messages) == ["hello", "half and half"]
        assert (shown.turns[0].status, shown.turns[0].provider) == ("done", "One+One")


async def test_only_its_caller_goes_on_with_it(tmp_path: Path) -> None:
    async with (
        aclosing(open_store(tmp_path / "a", on_crash="continue")) as store,
        aclosing(open_store(tmp_path / "a", on_crash="continue")) as other,
    ):
        turn = await begun(store)
        assert await other.take_over(ALICE.name, turn.id) is None, "its server lives"
        folder = crash(tmp_path / "a")
        turn.interrupt()
    async with aclosing(open_store(folder, on_crash="continue")) as store:
        assert await store.take_over(ANYBODY.name, turn.id) is None
        assert await store.take_over(ALICE.name, "turn_never") is None
        (await taken_over(store, turn.id)).interrupt()
