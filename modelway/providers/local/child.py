"""The program of the child process: llama.cpp's server on loopback, alive exactly as long as its parent.

Run as a file, so that it imports nothing but the standard library and the engine. It reads one line of
JSON from stdin (`path`, `alias`, `key`, `context_length`, `parallel`, `threads`), writes one line of JSON to
stdout (`{"url": ...}` or `{"error": ..., "at": "engine" | "model"}`), and ends when stdin ends.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from typing import IO, Any, Never

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

EXIT_REFUSED = 3


def main() -> None:
    """Load the model, tell where it listens, and stay until the parent is gone."""
    # The parent drains before it stops: a Ctrl-C or a stop of the whole group is its business alone.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    # Its memory holds conversations.
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = _private_stdout()
    wanted = json.loads(sys.stdin.readline())
    server, url = _serve(wanted, answers)
    _tell(answers, {"url": url})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threading.Event().wait()
    # Never reached; the reference keeps the server alive, whose destructor can hang.
    del server


def _private_stdout() -> IO[str]:
    """The pipe to the parent; what native code prints goes to stderr instead."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _serve(wanted: dict[str, Any], answers: IO[str]) -> tuple[Any, str]:
    # Both act only if set before the engine is loaded. Spinning OpenMP threads made generation ten times
    # slower on a busy machine; the backtrace of a crash forks a debugger.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    try:
        import xllamacpp  # noqa: PLC0415

        params = _params(xllamacpp.CommonParams(), wanted)
    except (ImportError, AttributeError, TypeError) as exc:
        _refuse(answers, "engine", exc)
    try:
        server = xllamacpp.Server(params)
    except (RuntimeError, ValueError, OSError) as exc:
        _refuse(answers, "model", exc)
    return server, server.listening_address


def _params(params: Any, wanted: dict[str, Any]) -> Any:
    params.model.path = wanted["path"]
    params.model_alias = {wanted["alias"]}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [wanted["key"]]
    params.cors_origins = ""
    params.ui = False
    params.endpoint_slots = False
    params.endpoint_metrics = True
    params.n_gpu_layers = 0
    params.n_ctx = wanted["context_length"]
    params.n_parallel = wanted["parallel"]
    params.kv_unified = True
    params.cache_ram_mib = 256
    params.fit_params = False
    params.verbosity = 1
    # A closed connection is noticed only between batches: 1.3 s at 256, 35 s at the default of 2048.
    params.n_batch = params.n_ubatch = 256
    cores = _cores()
    params.cpuparams.n_threads = wanted["threads"] or max(1, min(4, cores // 2))
    params.cpuparams_batch.n_threads = wanted["threads"] or cores
    return params


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _end_with_parent() -> None:
    while sys.stdin.readline():
        pass
    os._exit(0)


def _refuse(answers: IO[str], at: str, exc: Exception) -> Never:
    _tell(answers, {"error": f"{type(exc).__name__}: {exc}", "at": at})
    os._exit(EXIT_REFUSED)


def _tell(answers: IO[str], answer: dict[str, str]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
