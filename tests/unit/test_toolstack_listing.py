"""What real xl prints, read. All samples marked so are literal output of Debian's xl 4.17.5."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colod.toolstack import listing
from colod.toolstack.listing import Unreadable
from colod.toolstack.port import DomainState, Vif

HEADER = "Name                                        ID   Mem VCPUs\tState\tTime(s)\n"

# Real xl 4.17.5.
LIST = (
    HEADER
    + "Domain-0                                     0  1024     1     r-----      48.0\n"
    + "guest                                        1    88     1     -b----       4.7\n"
)
INCOMING = (
    HEADER + "guest--incoming                              1    88     0     --p---       0.0\n"
)
# Xen tools/xl/xl_info.c, list_domains: `verbose` without a security policy.
WITH_UUIDS = (
    HEADER.rstrip("\n") + "   UUID                            Reason-Code\tSecurity Label\n"
    "Domain-0                                     0  1024     2     r-----      16.8"
    " 00000000-0000-0000-0000-000000000000        -                -\n"
    "guest                                        1    88     1     -b----       4.7"
    " 7f4c54e2-1d20-4488-b030-25a2e2487c67        -                -\n"
    "(null)                                       2    88     1     --psrd       4.7"
    " 0f4c54e2-1d20-4488-b030-25a2e2487c67        1                -\n"
)
DETAILS = """[
    {
        "domid": 1,
        "config": {
            "c_info": {
                "type": "pv",
                "name": "guest",
                "domid": 4294967295,
                "uuid": "7f4c54e2-1d20-4488-b030-25a2e2487c67",
                "run_hotplug_scripts": "True"
            },
            "b_info": {
                "max_vcpus": 1,
                "max_memkb": 90112,
                "kernel": "/opt/lab/vmlinuz",
                "type.pv": {

                }
            },
            "nics": [
                {
                    "devid": 0,
                    "mac": "00:16:3e:77:00:10",
                    "bridge": "br0",
                    "nictype": "vif"
                }
            ],
            "on_reboot": "restart"
        }
    }
]

"""
DETAILS_OF_INCOMING = "[\n\n]\n\n"


def row(letters: str) -> listing.Row:
    line = f"guest                                        7    88     1     {letters}       0.0"
    return listing.parse_list(f"{HEADER}{line}\n")[0]


def test_a_listing_with_uuids_is_read() -> None:
    found = listing.parse_uuids(WITH_UUIDS)
    assert [(each.domid, each.name) for each in found.values()] == [
        (0, "Domain-0"),
        (1, "guest"),
        (2, listing.NAMELESS),
    ]
    assert found["7f4c54e2-1d20-4488-b030-25a2e2487c67"].state is DomainState.RUNNING
    assert found["0f4c54e2-1d20-4488-b030-25a2e2487c67"].state is DomainState.DYING
    with pytest.raises(listing.Unreadable):
        listing.parse_uuids(LIST)


def test_a_listing_of_real_xl_is_read() -> None:
    dom0, guest = (each.domain for each in listing.parse_list(LIST))
    assert (dom0.domid, dom0.name, dom0.state) == (0, "Domain-0", DomainState.RUNNING)
    assert (guest.domid, guest.name, guest.cpu_time_s) == (1, "guest", 4.7)
    assert guest.memory_bytes == 88 << 20


def test_an_incoming_copy_without_processors_is_paused() -> None:
    (copy,) = listing.parse_list(INCOMING)
    assert copy.domain.name == "guest--incoming"
    assert copy.domain.paused
    assert copy.domain.state is DomainState.PAUSED


@pytest.mark.parametrize(
    ("letters", "state"),
    [
        ("------", DomainState.RUNNING),
        ("-b----", DomainState.RUNNING),
        ("r-----", DomainState.RUNNING),
        ("--p---", DomainState.PAUSED),
        ("-bp---", DomainState.PAUSED),
        ("---ss-", DomainState.SUSPENDED),
        ("--pss-", DomainState.SUSPENDED),
        ("---s--", DomainState.SHUTDOWN),
        ("---sr-", DomainState.SHUTDOWN),
        ("---sc-", DomainState.CRASHED),
        ("---sw-", DomainState.CRASHED),
        ("---s?-", DomainState.SHUTDOWN),
        ("-----d", DomainState.DYING),
        ("--ps-d", DomainState.DYING),
    ],
)
def test_state_letters_have_their_meaning(letters: str, state: DomainState) -> None:
    assert row(letters).domain.state is state
    assert row(letters).domain.paused is (letters[2] == "p")


def test_a_reboot_is_told_from_a_poweroff() -> None:
    assert row("---sr-").domain.shutdown_reason == "reboot"
    assert row("---s--").domain.shutdown_reason == "poweroff"
    assert row("---ss-").domain.shutdown_reason == ""


def test_only_running_letters_without_a_pause_show_that_a_domain_ran() -> None:
    assert row("-b----").was_seen_running
    assert row("r-----").was_seen_running
    assert not row("------").was_seen_running
    assert not row("-bp---").was_seen_running


def test_a_domain_that_lost_its_name_is_listed_by_number() -> None:
    text = (
        f"{HEADER}(null)                                       9     0     1     --ps-d       3.1\n"
    )
    assert listing.parse_list(text)[0].domain.name == listing.NAMELESS


def test_names_with_blanks_and_long_names_are_read_whole() -> None:
    long = "x" * 50
    text = (
        HEADER
        + "two words                                    3    88     1     -b----       4.7\n"
        + f"{long}     4    88     1     -b----       4.7\n"
    )
    assert [each.domain.name for each in listing.parse_list(text)] == ["two words", long]


@pytest.mark.parametrize(
    "text", ["", "garbage\n", HEADER + "guest 1 88\n", HEADER + "\\xff\\xfe\n"]
)
def test_what_is_no_listing_is_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        listing.parse_list(text)


@given(st.text())
def test_no_text_makes_the_readers_fail_otherwise_than_they_say(text: str) -> None:
    for read in (listing.parse_list, lambda each: listing.parse_details(each, "guest")):
        with contextlib.suppress(Unreadable):
            read(text)
    listing.parse_info(text)
    listing.parse_tree(text)
    listing.is_autoballooning(text, text)


def test_details_of_real_xl_give_the_configuration() -> None:
    config = listing.parse_details(DETAILS, "guest")
    assert config is not None
    assert config["nics"][0]["bridge"] == "br0"


def test_an_incoming_copy_has_no_details() -> None:
    assert listing.parse_details(DETAILS_OF_INCOMING, "guest--incoming") is None


def test_details_of_another_domain_are_not_taken() -> None:
    assert listing.parse_details(DETAILS, "other") is None


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"domid": 1}]', json.dumps("x")])
def test_details_that_are_no_domains_are_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        listing.parse_details(text, "guest")


@pytest.mark.parametrize(
    ("conf", "commandline", "expected"),
    [
        ("", "", True),
        ("", "placeholder dom0_mem=1024M,max:1024M com1=115200,8n1", False),
        ("", "dom0_mem=max:10%", False),
        ("", "dom0_mem=512M+5% loglvl=all", False),
        ("", "xdom0_mem=1024M", True),
        ("", "dom0_mem=lots", True),
        ('#autoballoon="off"', "", True),
        ('autoballoon="off"', "", False),
        ("autoballoon='0'", "", False),
        ("autoballoon=0 # never", "", False),
        ('autoballoon="on"', "dom0_mem=1024M", True),
        ('autoballoon="auto"', "dom0_mem=1024M", False),
        ('autoballoon="auto"', "", True),
        ('autoballoon="off"\nautoballoon="on"', "dom0_mem=1G", True),
    ],
)
def test_autoballoon_follows_xls_own_rule(conf: str, commandline: str, expected: bool) -> None:
    assert listing.is_autoballooning(conf, commandline) is expected


def test_interfaces_come_from_libxls_part_of_xenstore() -> None:
    text = (
        '0 = ""\n'
        ' frontend = "/local/domain/5/device/vif/0"\n'
        ' backend = "/local/domain/0/backend/vif/5/0"\n'
        ' mac = "00:16:3e:77:00:10"\n'
        ' bridge = "br0"\n'
        ' type = "vif"\n'
        '3 = ""\n'
        ' backend = "/local/domain/2/backend/vif/5/3"\n'
        ' mac = "00:16:3e:77:00:11"\n'
        ' bridge = "br1"\n'
        ' type = "vif_ioemu"\n'
        ' vifname = "uplink"\n'
    )
    first, second = listing.vifs_of(listing.parse_tree(text), 5)
    assert first == Vif(
        devid=0, mac="00:16:3e:77:00:10", bridge="br0", name="vif5.0", backend_domid=0, kind="vif"
    )
    assert (second.devid, second.name, second.backend_domid) == (3, "uplink", 2)
    assert second.kind == "vif_ioemu"


def test_an_interface_without_backend_is_refused() -> None:
    with pytest.raises(Unreadable):
        listing.vifs_of({"0": "", "0/mac": "00:16:3e:77:00:10"}, 5)
