"""CHECKPOINT_STATE records, by which the two libxl agree on each step of a COLO checkpoint."""

from colod.simxen.wire import EndOfStream, StreamBroken, read_record, write_all
from colod.stream import libxl, writer
from colod.stream.libxl import ControlId
from colod.stream.record import ByteOrder


def say(fd: int, state: ControlId) -> None:
    """Write one.

    Raises:
        OSError: The other end is gone.
    """
    write_all(fd, writer.checkpoint_state(state))


def hear(fd: int, wanted: ControlId) -> None:
    """Read the next one, which has to be `wanted`.

    Raises:
        EndOfStream: The other end is gone.
        StreamBroken: It is another one, or none.
    """
    try:
        kind, body = read_record(fd)
    except OSError as error:
        raise EndOfStream(str(error)) from error
    if kind != libxl.RecordType.CHECKPOINT_STATE or len(body) < 4:
        raise StreamBroken(f"Unexpected record 0x{kind:08x}, want CHECKPOINT_STATE")
    (state,) = libxl.checkpoint_state(ByteOrder.LITTLE).unpack_from(body)
    if state != wanted:
        raise StreamBroken(f"Unexpected checkpoint state {state}, want {wanted.name}")
