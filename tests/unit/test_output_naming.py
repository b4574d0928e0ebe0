"""Names of colod's devices fit the kernel, and tell again what they were made for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colod.output.naming import alias_of, domid_of, ifb_of, read_back

IFNAMSIZ = 16


@given(st.text(min_size=1, max_size=15))
def test_the_name_of_any_ifb_fits_and_is_known_again(interface: str) -> None:
    name = ifb_of(interface)
    assert len(name.encode()) < IFNAMSIZ
    assert name == ifb_of(interface)
    assert read_back(name, "") is not None


@pytest.mark.parametrize(
    ("interface", "ifb"),
    [
        ("vif3.0", "colod3.0"),
        ("vif3.0-emu", "colod3.0e"),
        ("vif32751.127-emu", "colod32751.127e"),
    ],
)
def test_the_name_tells_domain_and_number(interface: str, ifb: str) -> None:
    assert ifb_of(interface) == ifb
    assert read_back(ifb, "") == (interface, "")


@pytest.mark.parametrize("interface", ["vif3.0", "vif3.0-emu", "web0"])
@pytest.mark.parametrize("label", ["", "guest=web pairing=0123abcd"])
def test_the_alias_tells_interface_and_label(interface: str, label: str) -> None:
    assert read_back(ifb_of(interface), alias_of(interface, label)) == (interface, label)


@pytest.mark.parametrize("name", ["ifb0", "colod", "colod3", "colodx.0", "colod-zz", "xcolod3.0"])
def test_devices_of_others_are_left_alone(name: str) -> None:
    assert read_back(name, "colod vif=vif3.0") is None


def test_the_domain_is_told_by_the_device_behind_or_by_the_name() -> None:
    assert domid_of("web0", "vif-7-1") == 7
    assert domid_of("vif7.1", "") == 7
    assert domid_of("vif7.1-emu", "") == 7
    assert domid_of("eth0", "0000:00:03.0") is None
