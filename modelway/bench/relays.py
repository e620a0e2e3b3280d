"""Programs that only relay, in front of the upstream: nginx, HAProxy and Envoy, one worker each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from modelway.bench.contestants import NGINX, Contestant, Entrant
from modelway.bench.processes import check_ours, free_port, started, wait_until_answers


class Relay(Struct, frozen=True):
    """A program: its configuration for an upstream's port and its own, and how it is started with that."""

    name: str
    file: str
    config: Callable[[int, int], str]
    command: Callable[[Path], Sequence[str]]


def relays(upstream_port: int) -> list[Entrant]:
    """Those that are installed here."""
    return [_entrant(relay, upstream_port) for relay in RELAYS if shutil.which(relay.name)]


def _entrant(relay: Relay, upstream_port: int) -> Entrant:
    @contextmanager
    def start(folder: Path) -> Iterator[Contestant]:
        port = free_port()
        config, log = folder / relay.file, folder / f"{relay.name}.log"
        config.write_text(relay.config(upstream_port, port))
        with started(relay.command(config), log=log) as process:
            wait_until_answers(port, process, log)
            check_ours(port, [process.pid], relay.name)
            yield Contestant(name=relay.name, port=port, roots=(process.pid,))

    return Entrant(relay.name, start)


def nginx_config(upstream_port: int, port: int) -> str:
    """The configuration that a careful administrator would write for streams of events."""
    folders = "\n".join(
        f"  {kind}_temp_path {kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_max_body_size 32m;
{folders}
  upstream bench {{
    server 127.0.0.1:{upstream_port};
    keepalive 1024;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://bench;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


def haproxy_config(upstream_port: int, port: int) -> str:
    """The same for HAProxy, which takes as many connections as it may open files."""
    return f"""global
  nbthread 1
defaults
  mode http
  option http-no-delay
  http-reuse always
  timeout connect 5s
  timeout client 300s
  timeout server 300s
frontend bench
  bind 127.0.0.1:{port}
  default_backend upstream
backend upstream
  server bench 127.0.0.1:{upstream_port} pool-max-conn -1
"""


def envoy_config(upstream_port: int, port: int) -> str:
    """The same for Envoy, which reads JSON too."""
    types = "type.googleapis.com/envoy.extensions.filters"
    route = {"match": {"prefix": "/"}, "route": {"cluster": "bench", "timeout": "0s"}}
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "stream_idle_timeout": "0s",
        "route_config": {"virtual_hosts": [{"name": "bench", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{types}.http.router.v3.Router"},
            }
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    most = {"max_connections": 16000, "max_pending_requests": 16000, "max_requests": 16000}
    endpoint = {"endpoint": {"address": _envoy_address(upstream_port)}}
    cluster = {
        "name": "bench",
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [most]},
        "load_assignment": {"cluster_name": "bench", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    listener = {"address": _envoy_address(port), "filter_chains": [{"filters": filters}]}
    return json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}, indent=1)


def _envoy_address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


RELAYS = (
    Relay(
        NGINX,
        "nginx.conf",
        nginx_config,
        lambda file: ["nginx", "-e", "stderr", "-p", str(file.parent), "-c", str(file)],
    ),
    Relay("haproxy", "haproxy.cfg", haproxy_config, lambda file: ["haproxy", "-db", "-f", str(file)]),
    Relay(
        "envoy",
        "envoy.json",
        envoy_config,
        lambda file: [
            "envoy",
            "--concurrency",
            "1",
            "--use-dynamic-base-id",
            "--log-level",
            "error",
            "-c",
            str(file),
        ],
    ),
)
