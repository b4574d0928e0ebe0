"""The cursor: reading in steps what arrives in chunks."""

from colod.stream.cursor import Cursor, Steps, T


def run(steps: Steps[T], cursor: Cursor, *chunks: bytes) -> tuple[T | None, int]:
    """Drive a reader through chunks; return its result and how many chunks it needed."""
    for needed, chunk in enumerate((b"", *chunks)):
        cursor.load(memoryview(chunk))
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value, needed
    return None, len(chunks)


def test_take_joins_what_is_spread_over_chunks() -> None:
    cursor = Cursor()
    assert run(cursor.take(5), cursor, b"a", b"", b"bc", b"def") == (b"abcde", 4)
    assert cursor.offset == 5


def test_take_of_nothing_needs_no_chunk() -> None:
    cursor = Cursor()
    assert run(cursor.take(0), cursor) == (b"", 0)


def test_skip_counts_without_reading() -> None:
    cursor = Cursor()
    assert run(cursor.skip(5), cursor, b"abc", b"def") == (None, 2)
    assert cursor.offset == 5


def test_wait_consumes_nothing() -> None:
    cursor = Cursor()
    assert run(cursor.wait(), cursor, b"", b"x") == (None, 2)
    assert cursor.offset == 0


def test_a_record_is_marked_where_it_begins() -> None:
    cursor = Cursor()
    run(cursor.skip(3), cursor, b"abc")
    assert cursor.mark_record() == cursor.record_at == 3


def test_no_view_of_a_chunk_outlives_its_unloading() -> None:
    cursor = Cursor()
    chunk = bytearray(b"ab")
    steps = cursor.take(5)
    with memoryview(chunk) as view:
        cursor.load(view)
        next(steps)
        cursor.unload()
    chunk += b"resized"  # BufferError, were it still viewed
    assert cursor.offset == 2
