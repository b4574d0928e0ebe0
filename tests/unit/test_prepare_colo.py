"""The configurations of both hosts: the guest's own file, overridden, and read back by xl."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from colod.config import Config, load_config
from colod.errors import ConfigError, NotFound, PreflightRefused, ToolstackError
from colod.model import GuestName
from colod.output.colo.guest_keys import ColoPorts, interface_keys
from colod.output.colo.guest_ports import choose_ports
from colod.prepare.colo_files import ColoFiles, Wish, listening_ports, make
from colod.prepare.colo_text import BEGIN, END, with_colo, without_colo
from colod.toolstack.colo_guest import colo_guest
from tests.unit.xl_samples import DIRECTORY, FakeXl, sample

WEB = GuestName("web")
FILE = DIRECTORY / "hvm.cfg"
WISH = Wish(guest=WEB, file=FILE)
OWN = choose_ports(WEB, ())
TOML = """
[host]
name = "alpha"
[peer]
name = "beta"
address = "{peer}"
[witness]
kind = "manual"
[toolstack]
guest_configs = "{configs}"
[transport]
kind = "tcp"
{transport}
"""


def configuration(
    tmp_path: Path, *, peer: str = "192.0.2.2:7411", transport: str = 'listen = "192.0.2.1"'
) -> Config:
    (tmp_path / "xen").mkdir(exist_ok=True)
    path = tmp_path / "colod.toml"
    path.write_text(TOML.format(peer=peer, configs=tmp_path / "xen", transport=transport))
    return load_config(path)


def made(tmp_path: Path, xl: FakeXl, wish: Wish = WISH, **config: str) -> ColoFiles:
    asked: Any = xl
    return asyncio.run(
        make(configuration(tmp_path, **config), wish, toolstack=asked, root=tmp_path)
    )


def offline() -> FakeXl:
    return FakeXl(files={"hvm.cfg": sample("hvm")}, made=sample("hvm"))


def blocks_of(text: str) -> str:
    return text[text.index(BEGIN) :]


@pytest.mark.parametrize(("number", "role"), [(0, "primary"), (1, "secondary")])
def test_the_whole_file_of_each_host(tmp_path: Path, number: int, role: str) -> None:
    file = made(tmp_path, offline()).files[number]
    assert (file.role, file.host) == (role, ("alpha", "beta")[number])
    assert file.path == tmp_path / "xen/web.cfg"
    assert file.text == (DIRECTORY / f"hvm.{role}.golden").read_text()


def test_the_hosts_files_differ_in_their_addresses_only(tmp_path: Path) -> None:
    first, second = (each.text for each in made(tmp_path, offline()).files)
    exchanged = first.replace("192.0.2.1", "X").replace("192.0.2.2", "192.0.2.1")
    assert exchanged.replace("X", "192.0.2.2").replace("alpha", "beta") == second


def test_made_again_of_what_was_made_it_is_the_same(tmp_path: Path) -> None:
    first = made(tmp_path, offline()).files[0]
    (tmp_path / "web.cfg").write_text(first.text)
    xl = FakeXl(files={"web.cfg": sample("hvm")}, made=sample("hvm"))
    again = made(tmp_path, xl, replace(WISH, file=tmp_path / "web.cfg")).files[0]
    assert again.text == first.text


def test_a_block_that_is_cut_off_is_left_alone() -> None:
    assert without_colo(f"a = 1\n{BEGIN}\nvif = []\n") == f"a = 1\n{BEGIN}\nvif = []\n"
    assert without_colo(f"a = 1\n{BEGIN}\nvif = []\n{END}\nb = 2\n") == "a = 1\nb = 2\n"


def test_a_file_that_ends_in_a_comment_does_not_swallow_the_block() -> None:
    guest = colo_guest(
        sample("hvm"),
        primary="192.0.2.1",
        secondary="192.0.2.2",
        ports=ColoPorts(),
        overlays=PurePosixPath("/o"),
    )
    text = with_colo("a = 1 # end", guest, ["one"])
    assert text.startswith(f"a = 1 # end\n\n{BEGIN}\n# one\nvif = [")
    assert text.endswith(f"' ]\n{END}\n")


def test_a_running_guest_is_taken_as_xl_has_it(tmp_path: Path) -> None:
    xl = FakeXl(running={"web": sample("hvm")})
    found = made(tmp_path, xl, Wish(guest=WEB))
    text = found.files[0].text
    assert text.startswith(BEGIN), "there is no file of its own"
    assert any("append it to the guest's own file" in each for each in found.notes)
    assert "mac=00:16:3e:77:00:10," in text


def test_a_running_guest_with_a_file_gets_the_whole_of_it(tmp_path: Path) -> None:
    xl = FakeXl(running={"web": sample("hvm")}, made=sample("hvm"))
    configuration(tmp_path)
    (tmp_path / "xen/web.cfg").write_text("name = 'web'\n")
    found = made(tmp_path, xl, Wish(guest=WEB))
    assert found.files[0].text.startswith("name = 'web'\n\n" + BEGIN)
    assert xl.read == [each.text for each in found.files], "xl has read both"


def test_the_size_of_the_disk_is_told_where_it_can_be_seen(tmp_path: Path) -> None:
    disk = tmp_path / "web.raw"
    disk.write_bytes(bytes(12_288))
    config = sample("hvm")
    config["disks"][0]["pdev_path"] = str(disk)
    xl = FakeXl(files={"hvm.cfg": config}, made=config)
    notes = made(tmp_path, xl).notes
    assert (
        "On both hosts, empty when COLO begins: qemu-img create -f qcow2 "
        "/var/lib/colod/colo/web-hda-active.qcow2 12288" in notes
    )
    assert not any("SIZE" in each for each in notes)


# --- ports


def test_ports_that_something_listens_on_are_not_taken(tmp_path: Path) -> None:
    (tmp_path / "proc/net").mkdir(parents=True)
    head = "  sl  local_address rem_address   st tx_queue\n"
    lines = (
        f"   0: 0100007F:{OWN.out:04X} 00000000:0000 0A 00000000:00000000\n"
        f"   1: 0100007F:{OWN.out + 8:04X} 0100007F:0016 01 00000000:00000000\n"
    )
    (tmp_path / "proc/net/tcp").write_text(head + lines)
    (tmp_path / "proc/net/tcp6").write_text(head + f"   0: {'0' * 32}:1F90 {'0' * 32}:0000 0A 0\n")
    assert listening_ports(tmp_path) == {OWN.out, 8080}
    assert made(tmp_path, offline()).guest.ports == choose_ports(WEB, {OWN.out})


@pytest.mark.parametrize("is_running", [True, False])
def test_ports_of_another_guest_are_not_taken(tmp_path: Path, is_running: bool) -> None:
    other = sample("plain")
    other["nics"][0]["colo_checkpoint_port"] = str(OWN.mirror)
    xl = offline()
    if is_running:
        xl.running["plain"] = other
    else:
        configuration(tmp_path)
        (tmp_path / "xen/plain.cfg").touch()
        xl.files["plain.cfg"] = other
    assert made(tmp_path, xl).guest.ports == choose_ports(WEB, {OWN.mirror})


def test_a_guest_keeps_the_ports_that_it_has_although_its_qemu_listens_there(
    tmp_path: Path,
) -> None:
    config = sample("hvm")
    guest = colo_guest(
        config,
        primary="192.0.2.1",
        secondary="192.0.2.2",
        ports=ColoPorts(disk=9990),
        overlays=PurePosixPath("/o"),
    )
    config["nics"][0].update(interface_keys(guest, has_qemu_comparator=False))
    config["disks"][0]["colo_port"] = 9990
    assert made(tmp_path, FakeXl(running={"web": config}), Wish(guest=WEB)).guest.ports == (
        guest.ports
    )


# --- addresses


@pytest.mark.parametrize(
    ("transport", "peer", "expected"),
    [
        ('listen = "192.0.2.1"', "192.0.2.2:7411", ("192.0.2.1", "192.0.2.2")),
        (
            'listen = "192.0.2.1"\nadvertise = "192.0.2.9"',
            "192.0.2.2:7411",
            ("192.0.2.9", "192.0.2.2"),
        ),
        (
            'listen = "alpha.repl"\nadvertise = "192.0.2.8"',
            "192.0.2.2:1",
            ("192.0.2.8", "192.0.2.2"),
        ),
    ],
)
def test_addresses_are_those_of_the_configuration(
    tmp_path: Path, transport: str, peer: str, expected: tuple[str, str]
) -> None:
    guest = made(tmp_path, offline(), transport=transport, peer=peer).guest
    assert (guest.primary, guest.secondary) == expected


@pytest.mark.parametrize(
    ("transport", "peer", "missing"),
    [
        ("", "192.0.2.2:7411", "--primary-address"),
        ('listen = "[2001:db8::1]"', "192.0.2.2:7411", "--primary-address"),
        ('listen = "192.0.2.1"', "beta.example:7411", "--secondary-address"),
        ('listen = "192.0.2.1"', "[2001:db8::2]:7411", "--secondary-address"),
    ],
)
def test_an_address_that_libxl_cannot_use_is_asked_for(
    tmp_path: Path, transport: str, peer: str, missing: str
) -> None:
    with pytest.raises(ConfigError, match=missing) as caught:
        made(tmp_path, offline(), transport=transport, peer=peer)
    assert "give the option" in caught.value.advice


@pytest.mark.parametrize("address", ["2001:db8::1", "alpha", "0.0.0.0", "192.0.2.1,x=y"])
def test_an_address_that_is_given_is_looked_at_too(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError, match="want an IPv4 address"):
        made(tmp_path, offline(), replace(WISH, primary_address=address))


def test_a_pair_is_two_hosts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the primary's, too"):
        made(tmp_path, offline(), replace(WISH, secondary_address="192.0.2.1"))


# --- what is refused


def test_a_guest_that_does_not_run_needs_its_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        made(tmp_path, FakeXl(), Wish(guest=WEB))
    assert "--file" in caught.value.advice


def test_a_file_of_another_guest_is_not_taken(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="is of web, not of db"):
        made(tmp_path, offline(), replace(WISH, guest=GuestName("db")))


def test_hostile_values_are_refused_and_not_written(tmp_path: Path) -> None:
    xl = FakeXl(files={"hostile.cfg": sample("hostile")}, made=sample("hostile"))
    wish = Wish(guest=GuestName("hostile"), file=DIRECTORY / "hostile.cfg")
    with pytest.raises(PreflightRefused) as caught:
        made(tmp_path, xl, wish)
    assert [each.split(": ")[0] for each in caught.value.reasons] == [
        "The guest's bridge",
        "The guest's vifname",
        "The guest's disks.0.target",
    ]
    assert xl.read == []


def test_a_result_that_xl_reads_otherwise_is_not_given_out(tmp_path: Path) -> None:
    xl = FakeXl(files={"hvm.cfg": sample("hvm")}, made=sample("plain"))
    with pytest.raises(ToolstackError, match="otherwise than it was meant"):
        made(tmp_path, xl)


def test_a_real_xl_has_to_have_read_every_key(tmp_path: Path) -> None:
    xl = offline()
    xl.is_simulated = False
    with pytest.raises(ToolstackError, match="for alpha otherwise than it was meant"):
        made(tmp_path, xl)


@pytest.mark.parametrize(
    ("octets", "problem"), [(b"\xff", "not UTF-8"), (b"#" * (1 << 20) + b"\n", "more than 1048576")]
)
def test_a_file_that_is_no_text_of_a_sane_size_is_refused(
    tmp_path: Path, octets: bytes, problem: str
) -> None:
    (tmp_path / "hvm.cfg").write_bytes(octets)
    with pytest.raises(ConfigError, match=problem):
        made(tmp_path, offline(), replace(WISH, file=tmp_path / "hvm.cfg"))
