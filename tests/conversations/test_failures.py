"""A store that cannot be read or written: said early, nothing acknowledged, well again without a restart."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import aclosing, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from modelway.conversations import Conversations
from modelway.conversations.allotments import Allotment
from modelway.conversations.spending import Spending
from modelway.errors import GatewayError, StoreUnavailable
from modelway.types import Completion, Finish, TextDelta
from tests.conversations.talk import ME, ask, begin, complete, history, open_store, statuses, texts
from tests.polling import until

pytestmark = pytest.mark.anyio


def file_of(folder: Path) -> Path:
    return folder / "kept" / "conversations.sqlite3"


def write(folder: Path, content: bytes) -> Path:
    file = file_of(folder)
    file.parent.mkdir(mode=0o700)
    file.write_bytes(content)
    return file


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process can grow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


GARBAGE = {
    "text": b"these are not conversations, but somebody's notes\n" * 100,
    "short": b"x",
    "zeros": bytes(8192),
    "only the beginning of a database": b"SQLite format 3\x00" + b"garbage" * 1000,
}


@pytest.mark.check(7)
@pytest.mark.parametrize("content", GARBAGE.values(), ids=list(GARBAGE))
async def test_a_file_that_is_something_else_is_refused_and_left_alone(
    tmp_path: Path, content: bytes
) -> None:
    file = write(tmp_path, content)
    with pytest.raises(StoreUnavailable) as caught:
        open_store(tmp_path)
    assert caught.value.hint
    assert file.read_bytes() == content


def foreign_database(folder: Path, version: int) -> Path:
    file = write(folder, b"")
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE recipes (title TEXT)")
        connection.execute(f"PRAGMA user_version={version}")
    return file


@pytest.mark.check(7)
@pytest.mark.parametrize("version", [0, 1])
async def test_the_database_of_another_program_is_refused_and_left_alone(
    tmp_path: Path, version: int
) -> None:
    file = foreign_database(tmp_path, version)
    before = file.read_bytes()
    with pytest.raises(StoreUnavailable, match="not a conversation store"):
        open_store(tmp_path)
    assert file.read_bytes() == before


@pytest.mark.check(7)
async def test_a_store_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    async with aclosing(open_store(tmp_path)) as store:
        await ask(store, "c", "hello")
    file = file_of(tmp_path)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version=99")
    before = file.read_bytes()
    with pytest.raises(StoreUnavailable, match="newer Modelway") as caught:
        open_store(tmp_path)
    assert "upgrade" in caught.value.hint
    assert file.read_bytes() == before


async def test_a_store_can_be_opened_when_what_was_wrong_is_mended(tmp_path: Path) -> None:
    file = write(tmp_path, b"garbage")
    with pytest.raises(StoreUnavailable):
        open_store(tmp_path)
    file.unlink()
    async with aclosing(open_store(tmp_path)) as store:
        await ask(store, "c", "hello")


async def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    write(tmp_path, b"")
    async with aclosing(open_store(tmp_path)) as store:
        await ask(store, "c", "hello")


@pytest.mark.parametrize("obstacle", ["a file for the folder", "a folder for the file"])
async def test_a_place_where_no_file_can_be_is_unavailable(tmp_path: Path, obstacle: str) -> None:
    if obstacle == "a file for the folder":
        (tmp_path / "kept").write_text("")
    else:
        file_of(tmp_path).mkdir(parents=True)
    with pytest.raises(StoreUnavailable, match=r"^the conversation store could not be opened: ") as caught:
        open_store(tmp_path)
    assert caught.value.hint == "check the disk space and the permissions of its directory"
    assert caught.value.retry_after == 1


@contextmanager
def without_privileges() -> Iterator[None]:
    """The superuser may write everything, so he becomes nobody."""
    superuser = os.geteuid() == 0
    if superuser:
        os.seteuid(65534)
    try:
        yield
    finally:
        if superuser:
            os.seteuid(0)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that can be reached by everybody."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.check(3)
@pytest.mark.parametrize("what", ["file", "folder"])
async def test_a_store_that_may_not_be_written_is_refused_and_left_alone(public: Path, what: str) -> None:
    async with aclosing(open_store(public)) as store:
        await ask(store, "c", "hello")
    file = file_of(public)
    before = file.read_bytes()
    (file.parent / "leases").chmod(0o777)
    file.chmod(0o444 if what == "file" else 0o666)
    file.parent.chmod(0o555 if what == "folder" else 0o777)
    with without_privileges(), pytest.raises(StoreUnavailable) as caught:
        open_store(public)
    assert "permissions" in caught.value.hint
    assert file.read_bytes() == before
    file.parent.chmod(0o700)
    file.chmod(0o600)
    async with aclosing(open_store(public)) as store:
        assert await history(store, "c") == ["hello", "yes"]


@pytest.mark.check(3)
async def test_a_full_disk_acknowledges_nothing_and_heals_without_a_restart(store: Conversations) -> None:
    await ask(store, "c", "one", says="1")
    with full_disk():
        with pytest.raises(StoreUnavailable) as caught:
            await begin(store, "c", "two")
        assert caught.value.status == 503
        assert caught.value.retry_after
        with pytest.raises(StoreUnavailable):
            await store.ready()
        with pytest.raises(StoreUnavailable):
            await store.fork(ME, "c", "d")
        with pytest.raises(StoreUnavailable):
            await store.delete(ME, "c")
        assert await history(store, "c") == ["one", "1"], "what is there can be read"
    await store.ready()
    turn = await ask(store, "c", "two", says="2")
    assert texts(turn.request.messages) == ["one", "1", "two"]
    assert await history(store, "c") == ["one", "1", "two", "2"]
    assert statuses(await store.show(ME, "c")) == ["done", "done"]


@pytest.mark.check(3)
async def test_an_end_that_cannot_be_written_is_not_acknowledged_and_the_turn_can_be_sent_again(
    store: Conversations,
) -> None:
    turn = await begin(store, "c", "one")
    with full_disk(), pytest.raises(StoreUnavailable):
        await complete(turn, "1")
    again = await begin(store, "c", "one")
    assert texts(again.request.messages) == ["one"]
    await complete(again, "1")
    assert await history(store, "c") == ["one", "1"]
    assert statuses(await store.show(ME, "c")) == ["interrupted", "done"]


async def test_a_write_waits_for_that_of_another_process(store: Conversations, tmp_path: Path) -> None:
    with closing(sqlite3.connect(file_of(tmp_path), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        asyncio.get_running_loop().call_later(0.2, other.execute, "COMMIT")
        await ask(store, "c", "hello")
    assert await history(store, "c") == ["hello", "yes"]


async def test_what_was_spent_is_written_however_many_wait(store: Conversations) -> None:
    for _ in range(4096):
        store.shelf.measured("turn_never", 0.5)
    with pytest.raises(StoreUnavailable, match=r"^too many turns wait for the conversation store$"):
        await store.shelf.create(ME, "c", {})
    day = "2026-11-21"
    spent = Spending(day=day, caller=ME, provider="P", model="m", nanos=7)
    assert await store.callers.spend([spent], day) == [(ME, 7, 7)]
    for _ in range(4096):
        store.shelf.measured("turn_never", 0.5)
    share = await store.callers.allot(ME, lambda others: Allotment(requests=others.requests + 1))
    assert share.own == Allotment(requests=1)


@pytest.mark.parametrize("leaves", ["meanwhile", "afterwards"])
async def test_an_end_that_cannot_be_written_when_nobody_waits_lets_the_next_one_in(
    tmp_path: Path, leaves: str
) -> None:
    async with aclosing(open_store(tmp_path, wait_s=0.2)) as store:
        turn = await begin(store, "c", "one")
        turn.record(TextDelta(text="1"))
        turn.record(Finish())
        told: list[Completion | None] = []
        with full_disk():
            turn.finish_soon("Provider", "model-1", told.append)
            if leaves == "meanwhile":
                turn.interrupt()
            await until(lambda: told)
            turn.interrupt()
        assert told == [None]
        await ask(store, "c", "two", says="2")
        assert statuses(await store.show(ME, "c")) == ["interrupted", "done"]


async def test_nothing_is_written_into_a_file_that_was_deleted(store: Conversations, tmp_path: Path) -> None:
    await ask(store, "c", "one", says="1")
    [file] = tmp_path.rglob("*.sqlite3")
    aside = file.with_name("aside")
    file.rename(aside)
    for _ in range(2):
        with pytest.raises(StoreUnavailable) as caught:
            await begin(store, "c", "two")
        assert caught.value.status == 503
    aside.rename(file)
    await ask(store, "c", "two", says="2")
    assert await history(store, "c") == ["one", "1", "two", "2"]


@pytest.mark.parametrize("end", ["fail", "interrupt"])
async def test_an_error_of_the_store_does_not_hide_why_a_turn_ended(store: Conversations, end: str) -> None:
    turn = await begin(store, "c", "one")
    turn.record(TextDelta(text="half"))
    with full_disk():
        if end == "fail":
            await turn.fail(GatewayError("no"))
        else:
            turn.interrupt()
        with pytest.raises(StoreUnavailable):
            await store.ready()
    await ask(store, "c", "two", says="2")
    assert (await history(store, "c"))[-2:] == ["two", "2"]
    assert statuses(await store.show(ME, "c")) == ["interrupted", "done"]


async def test_text_that_could_not_be_written_for_a_while_is_in_the_finished_turn(tmp_path: Path) -> None:
    async with aclosing(open_store(tmp_path, checkpoint_s=0.01)) as store:
        turn = await begin(store, "c", "one")
        with full_disk():
            turn.record(TextDelta(text="x" * 5000))
            with pytest.raises(StoreUnavailable):
                await store.ready()
        await complete(turn, " end")
        assert await history(store, "c") == ["one", "x" * 5000 + " end"]


async def test_a_new_store_on_a_full_disk_is_unavailable_and_comes_to_be_later(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    with full_disk(), pytest.raises(StoreUnavailable):
        open_store(tmp_path)
    async with aclosing(open_store(tmp_path)) as store:
        await ask(store, "c", "hello")


@pytest.mark.check(39)
async def test_only_the_owner_can_read_what_is_kept(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with aclosing(open_store(tmp_path)) as store:
            await ask(store, "c", "hello")
            folder = tmp_path / "kept"
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert stat.S_IMODE((folder / "leases").stat().st_mode) == 0o700
            files = [file for file in folder.iterdir() if file.is_file()]
            assert len(files) == 3
            assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    finally:
        os.umask(before)


async def test_what_nobody_waits_for_fails_in_the_log(
    store: Conversations, caplog: pytest.LogCaptureFixture
) -> None:
    store._writer.send(lambda _: 1 / 0)
    await store.ready()
    assert "ZeroDivisionError" in caplog.text


async def test_a_bug_behind_one_write_does_not_keep_its_group_waiting(
    store: Conversations, caplog: pytest.LogCaptureFixture
) -> None:
    def bug(_: object) -> None:
        raise ZeroDivisionError

    store._writer.send(lambda _: 1, bug)
    assert await store._writer.submit(lambda _: 2) == 2
    assert [record.getMessage() for record in caplog.records] == ["what follows a write has failed"]
