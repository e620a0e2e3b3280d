"""What is read from /proc, and that only what we started is measured and ended."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from modelway.bench.contestants import Contestant
from modelway.bench.processes import (
    BenchError,
    Usage,
    check_ours,
    child_environment,
    cpu_usage,
    free_port,
    listeners,
    readline,
    resident_bytes,
    started,
    tree,
    wait_until_answers,
)

from .conftest import needs_proc

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"])
print(child.pid, flush=True)
child.wait()
"""


@needs_proc
def test_a_tree_holds_children_and_their_memory(tmp_path: Path) -> None:
    with started([sys.executable, "-c", PARENT], log=tmp_path / "log", pipes=True) as process:
        lines = {readline(process).strip(), readline(process).strip()}
        child = int((lines - {b"up"}).pop())
        assert tree([process.pid]) == {process.pid, child}
        alone = resident_bytes([child])
        both = resident_bytes([process.pid])
        os.kill(child, 15)
    assert alone is not None
    assert both is not None
    assert 0 < alone < both


@needs_proc
def test_cpu_time_is_that_of_the_process_and_grows() -> None:
    before = cpu_usage([os.getpid()])
    sum(range(2_000_000))
    after = cpu_usage([os.getpid()])
    assert before is not None
    assert after is not None
    assert after.since(before) > 0


def test_usage_counts_new_processes_whole_and_old_ones_since_the_first_reading() -> None:
    assert Usage({1: 5.0, 3: 0.5}).since(Usage({1: 4.0, 2: 9.0})) == 1.5


def test_an_unknown_process_has_no_figures() -> None:
    assert cpu_usage([]) is None
    assert resident_bytes([]) is None


@needs_proc
def test_a_port_that_a_stranger_holds_is_not_measured(direct: Contestant, tmp_path: Path) -> None:
    assert listeners(direct.port) == set(direct.roots)
    check_ours(direct.port, direct.roots, "it")
    with (
        started([sys.executable, "-c", "import time; time.sleep(60)"], log=tmp_path / "log") as other,
        pytest.raises(BenchError, match=f"not ours alone .process {direct.roots[0]}"),
    ):
        check_ours(direct.port, [other.pid], "it")


def test_a_started_process_has_ended_after_the_block(tmp_path: Path) -> None:
    with started([sys.executable, "-c", "import time; time.sleep(60)"], log=tmp_path / "log") as process:
        assert process.poll() is None
    assert process.poll() is not None


def test_a_process_that_ends_at_once_is_reported_with_its_last_words(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        started([sys.executable, "-c", "raise SystemExit('no luck')"], log=log) as process,
        pytest.raises(BenchError, match="ended at once: no luck"),
    ):
        wait_until_answers(free_port(), process, log)


@pytest.mark.skipif(os.name != "posix", reason="elsewhere the check means something else")
def test_a_port_is_free_as_soon_as_its_listener_has_ended() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(BenchError, match=f"port {port} is taken"):
            free_port(port)
        with socket.create_connection(("127.0.0.1", port)):
            # Who closes first keeps its half of the connection for a minute.
            listener.accept()[0].close()
    assert free_port(port) == port


def test_a_child_does_not_see_the_users_settings_of_modelway(tmp_path: Path) -> None:
    inner = (
        "from modelway.bench.processes import child_environment as e; print(sorted(e({'MODELWAY_B': '2'})))"
    )
    environment = {**child_environment({}), "MODELWAY_A": "1"}
    done = subprocess.run([sys.executable, "-c", inner], env=environment, capture_output=True, check=True)
    assert b"MODELWAY_B" in done.stdout
    assert b"MODELWAY_A" not in done.stdout
