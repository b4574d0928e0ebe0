"""What the doctor says of COLO: which toolstack is there, and never that it is a failure."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from colod.daemon.doctor_colo import colo_findings, examine_colo
from colod.errors import ToolstackError
from colod.toolstack.colo_support import COMMANDS, DeviceModel, Has, Library, Support
from tests.unit.xl_samples import FakeXl, sample

LIBRARY = Library(path="/lib/libxl", colo=Has.YES, device_model="/q")
MODEL = DeviceModel(path="/q", loads_state=Has.YES)


def said(library: Library = LIBRARY, model: DeviceModel = MODEL) -> dict[str, tuple[str, str]]:
    """Return severity and text by subject."""
    found = colo_findings(Support(library=library, device_model=model))
    assert {each.severity for each in found} <= {"ok", "info"}
    assert all(bool(each.advice) == (each.severity == "info") for each in found)
    assert found[0].subject == "colo", "the sum comes first"
    return {each.subject: (each.severity, each.text) for each in found}


def test_a_rebuilt_toolstack_with_the_fix_that_can_be_seen() -> None:
    found = said()
    assert {subject: severity for subject, (severity, _) in found.items()} == {
        "colo": "ok",
        "colo libxl": "ok",
        "colo libxl fix": "info",
        "colo qemu": "ok",
        "colo qemu fix": "ok",
    }
    assert "can do COLO" in found["colo"][1]
    assert "not known: whether init_dsps()" in found["colo libxl fix"][1]


def test_a_stock_toolstack_does_remus_only() -> None:
    library = Library(path="/lib/libxl", colo=Has.NO, device_model="/q")
    found = said(library, DeviceModel(path="/q", missing_commands=COMMANDS))
    assert found["colo"] == ("info", "this toolstack does Remus only")
    assert found["colo libxl"] == (
        "info",
        "/lib/libxl was built without COLO, for want of libnl",
    )
    assert found["colo qemu"] == ("info", f"/q lacks {', '.join(COMMANDS)}")
    assert "colo libxl fix" not in found, "there is nothing to fix"
    assert "colo qemu fix" not in found


def test_a_qemu_without_the_fix_cannot_be_used() -> None:
    found = said(model=DeviceModel(path="/q", loads_state=Has.NO))
    assert found["colo"][1] == "this toolstack does Remus only"
    assert found["colo qemu"][0] == "ok"
    assert found["colo qemu fix"] == (
        "info",
        "/q aborts at xen-load-devices-state, so at a secondary's checkpoints",
    )


def test_what_is_not_known_is_said_to_be_so() -> None:
    found = said(Library(), DeviceModel(problem="not found"))
    assert "is not known" in found["colo"][1]
    assert found["colo libxl"][1] == "libxenlight of the Xen that runs was not found"
    assert found["colo qemu"][1] == "QEMU for HVM guests: not found"
    assert said(Library(path="/lib/x"))["colo libxl"] == ("info", "/lib/x does not tell")
    assert said(model=DeviceModel(path="/q"))["colo qemu fix"][0] == "info"


# --- a host


def host(xl: Any) -> Any:
    return SimpleNamespace(parts=SimpleNamespace(toolstack=xl))


async def test_the_simulated_xen_says_that_it_is_simulated() -> None:
    (found,) = await examine_colo(host(FakeXl()), "")
    assert (found.severity, found.subject) == ("ok", "colo")
    assert found.text.startswith("simulated")


@pytest.mark.parametrize(
    ("guest", "path"), [("web", "/opt/qemu-colo/bin/qemu-system-x86_64"), ("", ""), ("gone", "")]
)
async def test_a_guests_own_qemu_is_looked_at(guest: str, path: str) -> None:
    xl = FakeXl(running={"web": sample("hvm")}, is_simulated=False)
    found = {each.subject: each for each in await examine_colo(host(xl), guest)}
    assert set(found) >= {"colo", "colo libxl", "colo qemu"}
    assert (path in found["colo qemu"].text) if path else found["colo qemu"].severity == "info"


class NoXl(FakeXl):
    """A host where xl fails."""

    async def host_facts(self) -> Any:
        raise ToolstackError(("xl", "info"), 1)


async def test_where_xl_fails_that_is_said_once_and_not_here() -> None:
    assert await examine_colo(host(NoXl()), "") == []
