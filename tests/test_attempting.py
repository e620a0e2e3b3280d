"""Routes at work: breakers, deadlines, hedging, weights, timeouts."""

import asyncio
import random
import time
from collections import Counter
from contextlib import aclosing
from pathlib import Path

import pytest

from modelway.answer import Answer
from modelway.attempting import LOST, Attempting, Begun, Sent, after
from modelway.config import CandidateLimits, RouteSettings, Settings, UpstreamSettings
from modelway.conversations import Conversations
from modelway.errors import (
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    PermissionDenied,
    ProviderUnavailable,
    RequestTooLarge,
    UpstreamFailed,
    UpstreamRateLimited,
    UpstreamRefusedCredential,
    UpstreamTimeout,
)
from modelway.gateway import Gateway
from modelway.provider import ProviderInfo
from modelway.providers._dial import AddressInfo
from modelway.providers.http import HTTPClient
from modelway.providers.openai_compatible import OpenAICompatible
from modelway.routing import BadSetting, Breakers, BreakerState, Candidate, RetryPolicy, Route, Router
from modelway.telemetry import Attempt
from modelway.types import Caller, ChatRequest, Message, TextDelta
from tests.polling import until
from tests.scripted import Scripted, Step, says
from tests.serving import gateway_of

pytestmark = pytest.mark.anyio
CALLER = Caller("local")
KEY = ("One", "m")
OUTAGE = UpstreamFailed("500")


def asking(model: str = "", conversation_id: str = "") -> ChatRequest:
    return ChatRequest(
        messages=(Message(role="user", content="hi"),), model=model, conversation_id=conversation_id
    )


async def ask(gateway: Gateway, request: ChatRequest) -> Answer:
    async with aclosing(await gateway.answer(request, CALLER)) as answer:
        await answer.collect()
        return answer


def codes(answer: Answer) -> list[tuple[str, str]]:
    return [(attempt.provider, attempt.code) for attempt in answer.attempts]


def failing(*, final: bool = True) -> UpstreamFailed:
    """An error that is not tried again, so that tests need not wait."""
    return UpstreamFailed("500", retry_after=60 if final else 0)


class Clock:
    """Shows the time that it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def broken(clock: Clock, failures: int = 5) -> Breakers:
    breakers = Breakers(failures, 10, clock=clock)
    for _ in range(failures):
        breakers.failed(KEY, OUTAGE)
    return breakers


def wait_of(breakers: Breakers) -> float:
    with pytest.raises(ProviderUnavailable) as caught:
        breakers.admit(KEY)
    assert caught.value.retry_after is not None
    return caught.value.retry_after


def test_a_breaker_opens_with_the_fifth_failure_in_a_row() -> None:
    breakers = Breakers(5, 10)
    for _ in range(4):
        breakers.failed(KEY, OUTAGE)
        assert not breakers.admit(KEY)
    breakers.failed(KEY, OUTAGE)
    assert 9 < wait_of(breakers) <= 10


def test_an_answer_in_between_makes_it_count_anew() -> None:
    breakers = Breakers(2, 10)
    breakers.failed(KEY, OUTAGE)
    breakers.succeeded(KEY)
    breakers.failed(KEY, OUTAGE)
    assert not breakers.admit(KEY)


@pytest.mark.parametrize(
    "error",
    [UpstreamRateLimited("429"), UpstreamRefusedCredential("401"), InvalidRequest("400")],
    ids=lambda error: type(error).__name__,
)
def test_what_is_no_outage_opens_nothing(error: GatewayError) -> None:
    breakers = Breakers(2, 10)
    for _ in range(9):
        breakers.failed(KEY, error)
    assert not breakers.troubled


@pytest.mark.parametrize(
    ("error", "is_there"),
    [
        (InvalidRequest("400"), True),
        (ModelNotFound("404"), True),
        (RequestTooLarge("413"), True),
        (UpstreamRefusedCredential("401"), True),
        (UpstreamRateLimited("429"), False),
        (PermissionDenied("403"), False),
    ],
    ids=str,
)
def test_who_says_what_is_wrong_with_a_request_has_no_outage(error: GatewayError, is_there: bool) -> None:
    breakers = Breakers(2, 10)
    breakers.failed(KEY, OUTAGE)
    breakers.failed(KEY, error)
    assert (not breakers.troubled) is is_there
    breakers.failed(KEY, OUTAGE)
    state = breakers.state(KEY)
    assert state is not None
    assert state.state == ("closed" if is_there else "open")


def test_after_the_pause_one_probe_is_let_through() -> None:
    clock = Clock()
    breakers = broken(clock)
    clock.now += 9
    assert breakers.state(KEY) == BreakerState("One", "m", "open", 5, OUTAGE.code, 1.0)
    clock.now += 1
    assert breakers.state(KEY) == BreakerState("One", "m", "half_open", 5, OUTAGE.code, 0.0)
    assert breakers.admit(KEY)
    assert wait_of(breakers) == 1
    breakers.answers(KEY)
    assert not breakers.admit(KEY)
    breakers.succeeded(KEY)
    assert not breakers.troubled


def test_a_probe_that_fails_doubles_the_pause_up_to_a_minute() -> None:
    clock = Clock()
    breakers = broken(clock)
    waits = []
    for _ in range(6):
        waits.append(wait_of(breakers))
        clock.now += waits[-1]
        assert breakers.admit(KEY)
        breakers.failed(KEY, OUTAGE, probe=True)
    assert waits == [10, 20, 40, 60, 60, 60]


def test_a_probe_that_breaks_off_doubles_the_pause_too() -> None:
    clock = Clock()
    breakers = broken(clock)
    waits = []
    for _ in range(4):
        waits.append(wait_of(breakers))
        clock.now += waits[-1]
        assert breakers.admit(KEY)
        breakers.answers(KEY)
        breakers.failed(KEY, OUTAGE)
    assert waits == [10, 20, 40, 60]


def test_after_a_whole_answer_the_pause_is_short_again() -> None:
    clock = Clock()
    breakers = broken(clock)
    clock.now += 10
    assert breakers.admit(KEY)
    breakers.answers(KEY)
    breakers.succeeded(KEY)
    for _ in range(5):
        breakers.failed(KEY, OUTAGE)
    assert wait_of(breakers) == 10


def test_an_upstream_that_wants_a_longer_pause_gets_it() -> None:
    breakers = Breakers(1, 10, clock=Clock())
    breakers.failed(KEY, UpstreamFailed("503", retry_after=60))
    assert wait_of(breakers) == 60


def test_a_probe_that_is_given_up_leaves_room_for_another() -> None:
    clock = Clock()
    breakers = broken(clock)
    clock.now += 60
    assert breakers.admit(KEY)
    breakers.released(KEY)
    assert breakers.admit(KEY)


def test_breakers_for_other_things_have_the_same_clock_and_limits_and_their_own_failures() -> None:
    clock = Clock()
    breakers = broken(clock, 2).apart()
    assert not breakers.admit(KEY)
    for _ in range(2):
        breakers.failed(KEY, OUTAGE)
    assert wait_of(breakers) == 10
    clock.now += 10
    assert breakers.admit(KEY)


def test_what_was_asked_before_says_nothing_new() -> None:
    clock = Clock()
    breakers = broken(clock)
    clock.now += 60
    assert breakers.admit(KEY)
    breakers.failed(KEY, OUTAGE)
    assert wait_of(breakers) == 1
    state = breakers.state(KEY)
    assert state is not None
    assert (state.state, state.failures, state.last_code) == ("half_open", 5, "upstream_error")


def test_models_that_callers_make_up_do_not_fill_memory() -> None:
    breakers = Breakers()
    for number in range(5000):
        breakers.failed(("One", str(number)), OUTAGE)
    assert len(breakers.troubled) == 1000


async def test_check_21_an_open_breaker_is_told_at_once_and_one_probe_goes_through(tmp_path: Path) -> None:
    gate = asyncio.Event()
    failures: list[list[Step]] = [[failing()]] * 5
    one = Scripted("One", *failures, [gate, *says("back")])
    clock = Clock()
    async with aclosing(gateway_of([one], tmp_path, clock=clock)) as gateway:
        for _ in range(5):
            with pytest.raises(UpstreamFailed):
                await ask(gateway, asking())
        took = []
        for _ in range(10):
            began = time.perf_counter()
            with pytest.raises(ProviderUnavailable) as caught:
                await ask(gateway, asking())
            took.append(time.perf_counter() - began)
        # The machine may have had other things to do in some of them.
        assert min(took) < 0.005
        assert caught.value.status == 503
        assert caught.value.retry_after == 60
        assert len(one.requests) == 5
        clock.now += 60
        waiting = [asyncio.create_task(ask(gateway, asking())) for _ in range(100)]
        done, pending = await asyncio.wait(waiting, timeout=5, return_when=asyncio.FIRST_EXCEPTION)
        while len(pending) > 1:
            more, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            done |= more
        assert len(one.requests) == 6
        assert all(isinstance(task.exception(), ProviderUnavailable) for task in done)
        gate.set()
        assert (await pending.pop()).completion.text == "back"
        assert (await ask(gateway, asking())).completion.text == "back"
        assert not gateway.breakers.troubled


async def test_check_21_with_another_candidate_it_answers_at_once(tmp_path: Path) -> None:
    one, two = Scripted("One", [failing()]), Scripted("Two", says("instead"))
    settings = Settings(provider="One", fallback=("Two",))
    async with aclosing(gateway_of([one, two], tmp_path, settings)) as gateway:
        for _ in range(5):
            await ask(gateway, asking())
        answer = await ask(gateway, asking())
    assert len(one.requests) == 5
    assert codes(answer) == [("One", "provider_unavailable"), ("Two", "")]


async def test_where_all_are_left_alone_the_earliest_counts(tmp_path: Path) -> None:
    one, two = Scripted("One", [failing()]), Scripted("Two", [OUTAGE])
    settings = route_of("One", "Two", retries=0)
    async with aclosing(gateway_of([one, two], tmp_path, settings, clock=Clock())) as gateway:
        for _ in range(5):
            with pytest.raises(UpstreamFailed):
                await ask(gateway, asking("best"))
        with pytest.raises(ProviderUnavailable, match="Two could not answer instead") as caught:
            await ask(gateway, asking("best"))
    assert caught.value.retry_after == 10
    assert len(two.requests) == 5


async def test_an_answer_that_breaks_off_counts_as_a_failure(tmp_path: Path) -> None:
    one = Scripted("One", [TextDelta(text="half"), UpstreamTimeout("stalled", code="upstream_stalled")])
    async with aclosing(gateway_of([one], tmp_path)) as gateway:
        for _ in range(5):
            with pytest.raises(UpstreamTimeout):
                await ask(gateway, asking())
        with pytest.raises(ProviderUnavailable, match="upstream_stalled"):
            await ask(gateway, asking())


async def test_a_probe_whose_caller_leaves_makes_room_for_the_next(tmp_path: Path) -> None:
    silent = asyncio.Event()
    failures: list[list[Step]] = [[failing()]] * 5
    one = Scripted("One", *failures, [silent], says("back"))
    clock = Clock()
    async with aclosing(gateway_of([one], tmp_path, clock=clock)) as gateway:
        for _ in range(5):
            with pytest.raises(UpstreamFailed):
                await ask(gateway, asking())
        clock.now += 60
        probe = asyncio.create_task(ask(gateway, asking()))
        await until(lambda: len(one.requests) >= 6)
        probe.cancel()
        await asyncio.wait([probe])
        assert (await ask(gateway, asking())).completion.text == "back"


async def test_counts_that_fail_do_not_keep_chats_away(tmp_path: Path) -> None:
    class Counts(Scripted):
        async def count_tokens(self, request: ChatRequest) -> int:
            raise failing()

    async with aclosing(gateway_of([Counts("One")], tmp_path)) as gateway:
        for _ in range(5):
            with pytest.raises(UpstreamFailed):
                await gateway.counting.tokens_of(asking(), CALLER, [])
        with pytest.raises(ProviderUnavailable):
            await gateway.counting.tokens_of(asking(), CALLER, [])
        assert (await ask(gateway, asking())).completion.text == "hello"


def route_of(*candidates: str, **fields: object) -> Settings:
    route = RouteSettings(candidates=candidates, **fields)  # type: ignore[arg-type]
    return Settings(provider=candidates[0], routes={"best": route})


async def test_a_route_limits_the_time_to_the_first_token_of_each_candidate(tmp_path: Path) -> None:
    one, two = Scripted("One", [asyncio.Event()]), Scripted("Two", says("quick"))
    limits = {"One": CandidateLimits(first_token_timeout_s=0.05)}
    settings = route_of("One", "Two", limits=limits)
    async with aclosing(gateway_of([one, two], tmp_path, settings)) as gateway:
        answer = await ask(gateway, asking("best"))
    assert codes(answer) == [("One", "upstream_timeout"), ("Two", "")]
    assert one.closed == 1


@pytest.mark.parametrize(
    ("limit", "has_begun", "said", "code"),
    [
        ("idle_timeout_s", True, "0.05 s without a word", "upstream_stalled"),
        ("total_timeout_s", True, "0.05 s in all", "upstream_stalled"),
        ("total_timeout_s", False, "0.05 s in all", "upstream_timeout"),
    ],
)
async def test_a_route_limits_silence_and_the_whole_answer(
    tmp_path: Path, limit: str, has_begun: bool, said: str, code: str
) -> None:
    script: list[Step] = [TextDelta(text="half")] if has_begun else []
    one = Scripted("One", [*script, asyncio.Event()])
    settings = route_of("One", **{limit: 0.05})
    async with aclosing(gateway_of([one], tmp_path, settings)) as gateway:
        with pytest.raises(UpstreamTimeout) as caught:
            await ask(gateway, asking("best"))
    assert (caught.value.message, caught.value.code) == (f"One took more than {said}", code)
    assert one.closed == 1


async def test_a_route_limits_the_time_to_connect(tmp_path: Path) -> None:
    async def never(host: str, port: int) -> list[AddressInfo]:
        await asyncio.Event().wait()
        return []

    async with aclosing(HTTPClient(UpstreamSettings(), resolve=never)) as http:
        info = ProviderInfo(name="One", default_model="m")
        one = OpenAICompatible(info, "http://nowhere.invalid/v1", http=http, key=lambda: "")
        settings = route_of("One", connect_timeout_s=0.05)
        async with aclosing(gateway_of([one], tmp_path, settings)) as gateway:
            with pytest.raises(UpstreamTimeout, match=r"took no connection within 0\.05 s"):
                await ask(gateway, asking("best"))


async def test_a_route_has_retries_of_its_own(tmp_path: Path) -> None:
    one = Scripted("One", [failing(final=False)])
    async with aclosing(gateway_of([one], tmp_path, route_of("One", retries=4))) as gateway:
        with pytest.raises(UpstreamFailed):
            await ask(gateway, asking("best"))
    assert len(one.requests) == 5


async def test_all_attempts_end_with_the_deadline(tmp_path: Path) -> None:
    one, two = Scripted("One", [failing()]), Scripted("Two", [asyncio.Event()])
    three = Scripted("Three")
    settings = route_of("One", "Two", "Three", deadline_s=0.3)
    async with aclosing(gateway_of([one, two, three], tmp_path, settings)) as gateway:
        with pytest.raises(UpstreamFailed, match="no time left"):
            await ask(gateway, asking("best"))
    assert two.closed == 1
    assert three.requests == []


async def test_the_deadline_holds_for_the_first_attempt_too(tmp_path: Path) -> None:
    one = Scripted("One", [asyncio.Event()])
    settings = route_of("One", deadline_s=0.05, first_token_timeout_s=60)
    async with aclosing(gateway_of([one], tmp_path, settings)) as gateway:
        with pytest.raises(UpstreamTimeout, match=r"began no answer within 0\.0[45]\d* s"):
            await ask(gateway, asking("best"))


async def test_the_deadline_of_all_upstreams_holds_for_the_first_call(tmp_path: Path) -> None:
    one = Scripted("One", [asyncio.Event()])
    settings = Settings(provider="One")
    store = Conversations.open(tmp_path / "c.sqlite3", settings.conversations)
    gateway = Gateway(Router([one], settings), store, RetryPolicy(retries=0, deadline_s=0.05))
    async with aclosing(gateway), asyncio.timeout(5):
        with pytest.raises(UpstreamTimeout, match=r"began no answer within 0\.0[45]\d* s"):
            await ask(gateway, asking())
    assert one.closed == 1


async def test_what_only_one_upstream_can_answer_has_the_deadline_and_is_noted() -> None:
    attempting = Attempting(RetryPolicy(retries=0, deadline_s=0.05), Breakers(1, 10))
    attempts: list[Attempt] = []
    async with asyncio.timeout(5):
        with pytest.raises(UpstreamTimeout):
            await attempting.once_it_works((*KEY, "embeddings"), asyncio.Event().wait, attempts)
    with pytest.raises(ProviderUnavailable):
        await attempting.once_it_works((*KEY, "embeddings"), asyncio.Event().wait, attempts)
    noted = [(attempt.provider, attempt.model, attempt.code) for attempt in attempts]
    assert noted == [(*KEY, "upstream_timeout"), (*KEY, "provider_unavailable")]


async def test_a_call_that_was_made_before_others_failed_is_waited_for() -> None:
    one, two = Scripted("One", says("first")), Scripted("Two", says("second"))
    candidates = [Candidate(one, "m"), Candidate(two, "m")]
    attempting = Attempting(RetryPolicy(), broken(Clock()))
    sent = Sent(one.stream(asking()), made_at=time.time(), since=attempting.breakers.clock())

    async def begin(candidate: Candidate) -> Begun:
        raise AssertionError(candidate)

    came = await attempting.first_to_answer(candidates, after(sent, begin), [], sent=sent)
    assert came.candidate.name == "One"
    assert came.held == says("first")[:1]
    await came.stream.aclose()


async def test_a_pause_that_outlasts_the_deadline_is_not_made(tmp_path: Path) -> None:
    one = Scripted("One", [UpstreamRateLimited("later", retry_after=0.9)])
    async with aclosing(gateway_of([one], tmp_path, route_of("One", deadline_s=0.5))) as gateway:
        with pytest.raises(UpstreamRateLimited):
            await ask(gateway, asking("best"))
    assert len(one.requests) == 1


async def test_a_hedge_asks_the_next_one_and_closes_the_loser(tmp_path: Path) -> None:
    one, two = Scripted("One", [asyncio.Event()]), Scripted("Two", says("first"))
    settings = route_of("One", "Two", hedge_after_s=0.02)
    async with aclosing(gateway_of([one, two], tmp_path, settings)) as gateway:
        answer = await ask(gateway, asking("best", "c"))
        shown = await gateway.conversations.show("local", "c")
    assert answer.completion.text == "first"
    assert one.closed == 1
    assert sorted(codes(answer)) == [("One", LOST), ("Two", "")]
    assert all(attempt.ms > 10 for attempt in answer.attempts if attempt.code == LOST)
    assert [message.text for message in shown.messages] == ["hi", "first"]


async def test_a_hedge_is_not_needed_where_the_first_begins_in_time(tmp_path: Path) -> None:
    one, two = Scripted("One", says("quick")), Scripted("Two")
    settings = route_of("One", "Two", hedge_after_s=5)
    async with aclosing(gateway_of([one, two], tmp_path, settings)) as gateway:
        assert (await ask(gateway, asking("best"))).provider == "One"
    assert two.requests == []


async def test_a_hedge_ends_with_the_deadline_of_the_first(tmp_path: Path) -> None:
    one, two = Scripted("One", [asyncio.Event()]), Scripted("Two", [asyncio.Event()])
    settings = route_of("One", "Two", hedge_after_s=0.2, deadline_s=0.4)
    async with aclosing(gateway_of([one, two], tmp_path, settings)) as gateway:
        with pytest.raises(UpstreamTimeout) as caught:
            await ask(gateway, asking("best"))
    assert "no answer within 0.4 s" in caught.value.message
    assert (one.closed, two.closed) == (1, 1)


async def test_a_hedge_that_fails_leaves_the_first_alone(tmp_path: Path) -> None:
    gate = asyncio.Event()
    one, two = Scripted("One", [gate, *says("slow")]), Scripted("Two", [failing()])
    settings = route_of("One", "Two", hedge_after_s=0.01)
    async with aclosing(gateway_of([one, two], tmp_path, settings)) as gateway:
        asked = asyncio.create_task(ask(gateway, asking("best")))
        await until(lambda: two.closed)
        gate.set()
        assert (await asked).completion.text == "slow"


async def test_after_a_hedge_in_which_both_fail_the_third_is_asked(tmp_path: Path) -> None:
    gate = asyncio.Event()
    one, two = Scripted("One", [gate, failing()]), Scripted("Two", [failing()])
    three = Scripted("Three", says("third"))
    settings = route_of("One", "Two", "Three", hedge_after_s=0.01)
    async with aclosing(gateway_of([one, two, three], tmp_path, settings)) as gateway:
        asked = asyncio.create_task(ask(gateway, asking("best")))
        await until(lambda: two.closed)
        gate.set()
        answer = await asked
    assert answer.completion.text == "third"
    assert len(two.requests) == 1


@pytest.mark.parametrize("stateful", ["One", "Two"])
async def test_an_upstream_that_keeps_conversations_is_never_hedged(tmp_path: Path, stateful: str) -> None:
    gate = asyncio.Event()
    one = Scripted("One", [gate, *says("patience")], stateful=stateful == "One")
    two = Scripted("Two", stateful=stateful == "Two")
    settings = route_of("One", "Two", hedge_after_s=0.001)
    async with aclosing(gateway_of([one, two], tmp_path, settings)) as gateway:
        asked = asyncio.create_task(ask(gateway, asking("best")))
        await asyncio.wait([asked], timeout=0.05)
        assert two.requests == []
        gate.set()
        assert (await asked).completion.text == "patience"


async def test_a_caller_who_leaves_ends_both_calls_of_a_hedge(tmp_path: Path) -> None:
    one, two = Scripted("One", [asyncio.Event()]), Scripted("Two", [asyncio.Event()])
    settings = route_of("One", "Two", hedge_after_s=0.001)
    async with aclosing(gateway_of([one, two], tmp_path, settings)) as gateway:
        asked = asyncio.create_task(ask(gateway, asking("best")))
        await until(lambda: two.requests)
        asked.cancel()
        await asyncio.wait([asked])
        assert (one.closed, two.closed) == (1, 1)


@pytest.mark.parametrize("hedge_after_s", [None, 0.01])
async def test_a_hedge_knows_the_same_errors_that_end_everything(
    tmp_path: Path, hedge_after_s: float | None
) -> None:
    one, two = Scripted("One", [asyncio.Event()]), Scripted("Two", [InvalidRequest("too many tools")])
    three = Scripted("Three")
    limits = {"One": CandidateLimits(first_token_timeout_s=0.2)}
    settings = route_of("One", "Two", "Three", hedge_after_s=hedge_after_s, limits=limits)
    async with aclosing(gateway_of([one, two, three], tmp_path, settings)) as gateway:
        with pytest.raises(UpstreamTimeout, match="Two could not answer instead: too many tools"):
            await ask(gateway, asking("best"))
    assert three.requests == []


async def test_a_wrong_request_ends_a_hedge_at_once(tmp_path: Path) -> None:
    gate = asyncio.Event()
    one, two = Scripted("One", [gate, InvalidRequest("no such tool")]), Scripted("Two", [asyncio.Event()])
    settings = route_of("One", "Two", hedge_after_s=0.01)
    async with aclosing(gateway_of([one, two], tmp_path, settings)) as gateway, asyncio.timeout(5):
        asked = asyncio.create_task(ask(gateway, asking("best")))
        await until(lambda: two.requests)
        gate.set()
        with pytest.raises(InvalidRequest, match="no such tool"):
            await asked
    assert two.closed == 1


@pytest.mark.parametrize("times", [1, 20])
async def test_a_caller_who_leaves_while_the_loser_ends_leaves_no_winner_behind(times: int) -> None:
    ending, winners = asyncio.Event(), []
    route = Route("best", hedge_after_s=0.0)
    loser, winner = Candidate(Scripted("One"), "m", route=route), Candidate(Scripted("Two"), "m", route=route)

    class Stream:
        closed = False

        async def aclose(self) -> None:
            for _ in range(3):
                await asyncio.sleep(0)
            self.closed = True

    async def begin(candidate: Candidate) -> Begun:
        if candidate is winner:
            winners.append(Stream())
            return Begun(candidate, winners[0], [])  # type: ignore[arg-type]
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await asyncio.Event().wait()
        raise AssertionError

    attempting = Attempting(RetryPolicy(), Breakers())
    attempts: list[Attempt] = []
    asked = asyncio.create_task(attempting.first_to_answer([loser, winner], begin, attempts))
    async with asyncio.timeout(5):
        await ending.wait()
        for _ in range(times):
            asked.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([asked])
        for _ in range(20):
            await asyncio.sleep(0)
    assert winners[0].closed
    assert asked.cancelled()
    assert [attempt.code for attempt in attempts if attempt.provider == "One"].count(LOST) == 1


def test_weights_decide_who_is_asked_first() -> None:
    providers = [Scripted("One"), Scripted("Two"), Scripted("Three")]
    settings = route_of("One", "Two", "Three", weights=(6.0, 3.0, 1.0))
    router = Router(providers, settings, rng=random.Random(7))
    drawn = [[one.name for one in router.resolve(asking("best"))] for _ in range(2000)]
    assert all(sorted(names) == ["One", "Three", "Two"] for names in drawn)
    first = Counter(names[0] for names in drawn)
    assert 1120 < first["One"] < 1280
    assert 520 < first["Two"] < 680


def test_a_conversation_stays_with_the_candidate_that_was_drawn_for_it() -> None:
    providers = [Scripted("One"), Scripted("Two")]
    router = Router(providers, route_of("One", "Two", weights=(1.0, 1.0)))
    drawn = {name: {router.resolve(asking("best", name))[0].name for _ in range(20)} for name in "abcdefgh"}
    assert all(len(names) == 1 for names in drawn.values())
    assert {name for names in drawn.values() for name in names} == {"One", "Two"}


def test_a_shadow_must_not_keep_conversations() -> None:
    providers = [Scripted("One"), Scripted("Copilot", stateful=True)]
    with pytest.raises(BadSetting, match=r"routes\.best\.shadow") as caught:
        Router(providers, route_of("One", shadow="Copilot"))
    assert caught.value.key == "routes.best.shadow"
    assert caught.value.error.message == "Copilot keeps conversations itself and cannot be a shadow"
    assert caught.value.error.hint == "name another one"


def test_jitter_comes_from_the_source_that_is_given() -> None:
    pauses = [RetryPolicy(random=random.Random(3)).pause(UpstreamFailed("x"), 0, stateful=False)] * 2
    assert pauses[0] == pauses[1]
