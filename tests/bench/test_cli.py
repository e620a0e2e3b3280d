"""The command, from its options to its files."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from modelway.bench.cli import app
from modelway.bench.contestants import DIRECT, MODELWAY, Contestant, Entrant
from modelway.bench.gateways import Others, entrants, other
from modelway.bench.measure import Options
from modelway.bench.memory import stream_load
from modelway.bench.processes import BenchError, exchange, free_port
from modelway.bench.relays import envoy_config, haproxy_config, nginx_config
from modelway.bench.run import Task, choose, step_count

from .conftest import needs_proc


@needs_proc
def test_a_quick_run_measures_another_gateway_beside_the_upstream(
    tmp_path: Path, upstream_port: int, relay_port: int
) -> None:
    name = f"127.0.0.1:{relay_port}"
    figures, image = tmp_path / "figures.json", tmp_path / "figures.png"
    arguments = [
        "compare",
        "--quick",
        "--duration",
        "0.1",
        "--mode",
        "json,sse50,paced,streams",
        "--only",
        name,
    ]
    arguments += ["--address", f"http://{name}/v1", "--upstream-port", str(upstream_port)]
    done = CliRunner().invoke(app, [*arguments, "--json", str(figures), "--plot", str(image)])
    assert done.exit_code == 0, done.output
    assert name in done.output
    report = json.loads(figures.read_bytes())
    assert [shape["shape"] for shape in report["shapes"]] == ["json", "sse50", "paced"]
    for shape in report["shapes"]:
        assert [row["contestant"] for row in shape["rows"]] == [DIRECT, name]
        for row in shape["rows"]:
            assert row["errors"] == {}
            assert row["requests"] > 0
            assert row["cpu_us"]["median"] > 0
            if shape["shape"] == "paced":
                # Each event has said when it was sent; how long ago that was is no matter of a test.
                assert isinstance(row["added_event_p50"]["median"], float)
    streams = report["memory"]
    assert [(row["contestant"], row["streams"], row["errors"]) for row in streams] == [(DIRECT, 20, {})]
    assert streams[0]["delivered"] == streams[0]["expected"]
    assert image.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_an_unknown_mode_names_those_that_there_are() -> None:
    done = CliRunner().invoke(app, ["compare", "--mode", "jsn"])
    assert done.exit_code == 2
    assert "no mode jsn" in done.output


def test_a_number_of_streams_must_be_one() -> None:
    assert CliRunner().invoke(app, ["compare", "--open-streams", "100,many"]).exit_code == 2


def test_a_plot_that_cannot_be_drawn_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["compare", "--plot", str(tmp_path / "a.gif")])
    assert done.exit_code == 1
    assert "a plot ends in .png or .svg" in done.output


def test_only_loopback_is_measured() -> None:
    with pytest.raises(BenchError, match="only loopback"):
        other("http://203.0.113.5:8000/v1", Others())
    with pytest.raises(BenchError, match="only loopback"):
        other("peer=http://203.0.113.5:8000/v1", Others())
    done = CliRunner().invoke(app, ["compare", "--quick", "--address", "https://localhost/v1"])
    assert done.exit_code == 1
    assert "not an http address of this machine" in done.output


def test_an_address_may_leave_out_scheme_and_path(tmp_path: Path) -> None:
    entrant = other("localhost:4000", Others(model="gpt"))
    with entrant.start(tmp_path) as contestant:
        assert (contestant.host, contestant.port, contestant.model) == ("localhost", 4000, "gpt")
        assert contestant.path == "/v1/chat/completions"
    with other("http://localhost:4000/api/v1/", Others(model="gpt")).start(tmp_path) as contestant:
        assert contestant.path == "/api/v1/chat/completions"


def test_an_address_may_have_a_name_and_headers(tmp_path: Path) -> None:
    others = Others(headers=("X-Provider: openai", "authorization:Bearer other"))
    entrant = other("peer=localhost:4000", others)
    assert entrant.name == "peer"
    assert other("http://localhost:4000/v1?key=a", Others()).name == "localhost:4000"
    with entrant.start(tmp_path) as contestant:
        load = contestant.load("bench:json", stream=False, run="r")
        assert load.headers == {"authorization": "Bearer other", "x-provider": "openai"}


@pytest.mark.parametrize("line", ["x-provider", ": x", "x provider: y", "x: y\r\nz: w", "Host: x"])
def test_what_is_no_header_is_told_before_anything_is_measured(line: str) -> None:
    done = CliRunner().invoke(app, ["compare", "--quick", "--address-header", line])
    assert done.exit_code == 1
    assert "--address-header" in done.output


def test_a_header_is_for_somebody_and_its_value_is_not_repeated() -> None:
    with pytest.raises(BenchError, match="there is none"):
        entrants(1, Others(headers=("x-provider: openai",)))
    with pytest.raises(BenchError) as caught:
        entrants(1, Others(headers=("authorization Bearer sk-fake",)))
    assert "sk-fake" not in str(caught.value)


def test_contestants_are_chosen_by_name() -> None:
    found = [other("localhost:1", Others()), other("localhost:2", Others())]
    assert [entrant.name for entrant in choose(["localhost:2"], found)] == ["localhost:2"]
    assert choose([], found) == found
    assert choose([DIRECT], found) == []
    with pytest.raises(BenchError, match="no caddy to measure here; there are localhost:1, localhost:2"):
        choose(["caddy"], found)
    with pytest.raises(BenchError, match="the name localhost:1 is taken"):
        choose([], [found[0], found[0]])
    with pytest.raises(BenchError, match="the name direct is taken"):
        choose([], [other("direct=localhost:1", Others())])


def test_everybody_can_be_named_beside_others() -> None:
    """--only separates names with commas."""
    assert not [entrant.name for entrant in entrants(1) if "," in entrant.name]
    with pytest.raises(BenchError, match="a name of an address has no comma"):
        other("a,b=localhost:4000", Others())


def test_steps_count_every_contestant_in_every_round() -> None:
    ours, foreign = Entrant(MODELWAY, other("localhost:1", Others()).start), other("localhost:1", Others())
    task = Task(options=Options(rounds=5, open_streams=(100, 500), startup_rounds=7))
    assert step_count(task, [ours, foreign]) == 3 * 3 * 5 + 2 * 2 + 4 * 7
    assert step_count(Task(modes=("json",), options=Options(rounds=2)), []) == 2


def test_streams_stay_open_until_the_last_has_begun() -> None:
    contestant = Contestant(name="x", port=1)
    load, events = stream_load(contestant, 1000, hold_s=2.0)
    assert load.connections == load.requests == 1000
    assert load.requests / load.rate == 2.0
    assert events * 0.1 >= load.requests / load.rate + 2.0


def test_a_stored_contestant_gives_each_request_a_conversation() -> None:
    body = Contestant(name="x", port=1, provider="Bench", stored=True).body("bench:json", stream=False)
    assert json.loads(body)["conversation_id"] == "@ID@"
    assert json.loads(body)["provider"] == "Bench"
    assert "conversation_id" not in Contestant(name="x", port=1).body("bench:json", stream=False)


def test_nginx_relays_streams_unbuffered_over_kept_connections() -> None:
    config = nginx_config(1234, 5678)
    assert config.count("{") == config.count("}")
    for line in ("server 127.0.0.1:1234;", "listen 127.0.0.1:5678", "proxy_buffering off;", "daemon off;"):
        assert line in config


def test_the_other_relays_go_to_the_upstream_and_wait_long() -> None:
    haproxy, envoy = haproxy_config(1234, 5678), json.loads(envoy_config(1234, 5678))
    assert "bind 127.0.0.1:5678" in haproxy
    # Without it, HAProxy holds back an event for up to a fifth of a second.
    assert "option http-no-delay" in haproxy
    assert "server bench 127.0.0.1:1234" in haproxy
    (listener,), (cluster,) = envoy["static_resources"].values()
    assert listener["address"]["socket_address"]["port_value"] == 5678
    (route,) = listener["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]
    assert route["routes"][0]["route"] == {"cluster": cluster["name"], "timeout": "0s"}


def test_the_upstream_alone_tells_its_address_and_ends_on_a_signal() -> None:
    port = free_port()
    command = [
        sys.executable,
        "-c",
        "from modelway.bench.cli import app; app()",
        "upstream",
        "--port",
        str(port),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert f"http://127.0.0.1:{port}/v1".encode() in process.stderr.readline()
        page = exchange(port, b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0
    assert page.endswith(b"ok")


def test_a_port_in_use_is_told() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = CliRunner().invoke(app, ["upstream", "--port", str(taken.getsockname()[1])])
    assert done.exit_code == 1
    assert "cannot be used" in done.output
