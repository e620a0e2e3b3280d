"""What models cost."""

from __future__ import annotations

import pytest

from modelway.config import PriceSettings
from modelway.prices import NANOS, Price, Prices
from modelway.prices.estimate import tokens_of, usage_of
from modelway.prices.table import load_table
from modelway.types import (
    Choice,
    Completion,
    ImagePart,
    Message,
    TextPart,
    ToolCall,
    Usage,
)


def test_a_published_price_is_found_by_provider_and_model() -> None:
    price = Prices().of("OpenAI", "gpt-4o-mini")
    assert price is not None
    assert price.cost(Usage(1_000_000, 1_000_000)) == round(0.75 * NANOS)


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("Anthropic", "claude-sonnet-4-5-20250929"),
        ("Bedrock", "anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("Groq", "openai/gpt-oss-120b"),
        ("DeepSeek", "deepseek-chat"),
        ("Gemini", "gemini-2.5-pro"),
        ("Vertex", "gemini-2.5-pro"),
        ("Azure", "gpt-4o"),
        ("mistral", "MISTRAL-LARGE-LATEST"),
    ],
)
def test_every_vendor_s_prices_are_there(provider: str, model: str) -> None:
    price = Prices().of(provider, model)
    assert price is not None
    assert price.output > price.input > 0


@pytest.mark.parametrize(
    ("provider", "model"), [("Local", "smollm2"), ("OpenAI", "no-such"), ("Mine", "gpt-4o"), ("OpenAI", "")]
)
def test_what_nobody_has_told_has_no_price(provider: str, model: str) -> None:
    assert Prices().of(provider, model) is None


def test_an_upstream_under_a_name_of_the_user_s_is_known_by_its_address() -> None:
    addresses = {"Work": "https://api.openai.com/v1", "Here": "http://127.0.0.1:9/v1"}
    prices = Prices(addresses=addresses)
    assert prices.of("Work", "gpt-4o") == Prices().of("OpenAI", "gpt-4o")
    assert prices.of("Here", "gpt-4o") is None


def test_the_user_s_own_price_wins() -> None:
    prices = Prices(
        {
            "openai/gpt-4o": PriceSettings(input=1.0, output=2.0),
            "Local/*": PriceSettings(output=0.01),
        }
    )
    own = prices.of("OpenAI", "gpt-4o")
    assert own is not None
    assert own.cost(Usage(1000, 1000)) == 3_000_000
    assert prices.of("Local", "smollm2") == Price(output=10_000)
    assert prices.of("OpenAI", "gpt-4o-mini") == Prices().of("OpenAI", "gpt-4o-mini")


def test_a_star_alone_is_the_price_of_what_has_no_other() -> None:
    prices = Prices({"*": PriceSettings(input=1.0), "Local/*": PriceSettings()})
    assert prices.of("Mine", "new") == Price.of_a_million(input=1.0)
    assert prices.of("OpenAI", "gpt-4o") == Prices().of("OpenAI", "gpt-4o")
    assert prices.of("Local", "smollm2") == Price()
    assert prices.of("OpenAI", "g" * 5000) == Price.of_a_million(input=1.0)


def test_what_came_from_a_cache_costs_less_and_what_went_there_more() -> None:
    price = Price.of_a_million(input=10, output=20, cached=1, cache_write=12.5)
    usage = Usage(1000, 100, cached_tokens=600, cache_write_tokens=300)
    assert price.cost(usage) == 100 * 10_000 + 600 * 1_000 + 300 * 12_500 + 100 * 20_000


def test_a_long_question_costs_more_for_all_of_it() -> None:
    longer = Price.of_a_million(input=6, output=20, above=200_000)
    price = Price.of_a_million(input=3, output=10, longer=(longer,))
    assert price.cost(Usage(200_000, 0)) == 600_000_000
    assert price.cost(Usage(200_001, 0)) == 1_200_006_000


def test_parts_of_a_billionth_are_rounded_up() -> None:
    assert Price(input=1).cost(Usage(1, 0)) == 1
    assert Price().cost(Usage(1, 1)) == 0


def test_random_names_of_models_do_not_fill_the_memory() -> None:
    prices = Prices()
    for number in range(5000):
        prices.of("Local", f"m-{number}")
    assert len(prices._known) <= 2048
    assert prices.of("OpenAI", "g" * 5000) is None


def test_the_table_tells_where_it_comes_from() -> None:
    table = load_table()
    assert "MIT" in table.source
    assert table.as_of >= "2026-11-21"
    assert sum(len(vendor.models) for vendor in table.providers.values()) > 1000


def test_tokens_are_guessed_from_the_length_of_the_text() -> None:
    messages = (
        Message(role="user", content="x" * 400),
        Message(role="user", content=(TextPart("y" * 40), ImagePart("data:image/png;base64,AA=="))),
    )
    assert tokens_of(messages) == 104 + 4 + 10 + 765
    call = ToolCall("1", "look", '{"a": 1}')
    answer = Message(role="assistant", content="z" * 80, reasoning="w" * 20, tool_calls=(call,))
    guess = usage_of(messages[:1], Completion(choices=(Choice(message=answer),)))
    assert guess == Usage(104, 28)
