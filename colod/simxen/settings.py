"""xl's configuration files, as far as the simulated Xen needs them.

Besides xl's own keys there are `sim_service` (the guest's address, HOST:PORT), `sim_listener` (a
file that hears what the guest says unasked), `sim_wire` (instead of an address: the socket of the
switch that its frames go to), `sim_memory_pages`, `sim_tick_ms` and `sim_writes_per_tick`.
"""

import ast
import os
import uuid
from typing import Any

from colod.simxen.guest import DEFAULT_PAGES, MIN_PAGES

JsonObject = dict[str, Any]
Value = str | int | float | list[Any]

ACTIONS = ("destroy", "restart", "rename-restart", "preserve", "coredump-destroy")


class ConfigProblem(Exception):
    """The file cannot be used; the text is what xl's parser would complain about."""


def parse(text: str) -> dict[str, Value]:
    """Read `key = value` lines; a list may go over several lines."""
    settings: dict[str, Value] = {}
    pending = ""
    for number, line in enumerate(text.splitlines(), 1):
        pending += ("\n" if pending else "") + _without_comment(line)
        if pending.count("[") > pending.count("]"):
            continue
        if pending.strip():
            key, equals, value = pending.partition("=")
            if not equals:
                raise ConfigProblem(f"config parsing error near line {number}: syntax error")
            settings[key.strip()] = _value(value.strip(), number)
        pending = ""
    return settings


def domain_config(text: str) -> JsonObject:
    """Turn a configuration file into libxl's JSON."""
    settings = parse(text)
    name = settings.get("name")
    if not isinstance(name, str) or not name:
        raise ConfigProblem("Domain name must be specified.")
    kind = str(settings.get("type", settings.get("builder", "pv"))).replace("generic", "pv")
    config: JsonObject = {
        "c_info": {
            "type": kind,
            "name": name,
            "uuid": str(settings.get("uuid", uuid.UUID(bytes=os.urandom(16), version=4))),
            "run_hotplug_scripts": "True",
        },
        "b_info": _build_info(settings, kind),
    }
    for key, specs, build in (
        ("vif", "nics", _nic),
        ("disk", "disks", _disk),
        ("pci", "pcidevs", _pci),
    ):
        found = settings.get(key, [])
        if isinstance(found, list) and found:
            config[specs] = [build(index, str(spec)) for index, spec in enumerate(found)]
    for event in ("on_poweroff", "on_reboot", "on_crash"):
        action = str(settings.get(event, "restart" if event == "on_reboot" else "destroy"))
        if action != "destroy":
            config[event] = action.replace("-", "_")
    config["on_soft_reset"] = "soft_reset"
    config["simulated"] = {**_knobs(settings), "bridge": bridge_of(config)}
    return config


def bridge_of(config: JsonObject) -> str:
    """Return the bridge of a domain's first interface, "" without one."""
    nics = config.get("nics", [])
    return str(nics[0].get("bridge", "")) if nics else ""


def _build_info(settings: dict[str, Value], kind: str) -> JsonObject:
    memory_kb = int(_number(settings, "memory", 32)) * 1024
    vcpus = int(_number(settings, "vcpus", 1))
    info: JsonObject = {
        "max_vcpus": vcpus,
        "avail_vcpus": list(range(vcpus)),
        "max_memkb": int(_number(settings, "maxmem", memory_kb // 1024)) * 1024,
        "target_memkb": memory_kb,
        "video_memkb": 0,
        "sched_params": {"sched": "credit2", "weight": 256, "cap": 0},
        "claim_mode": "True",
    }
    for key, name in (("kernel", "kernel"), ("extra", "cmdline"), ("ramdisk", "ramdisk")):
        if key in settings:
            info[name] = settings[key]
    info.update({f"type.{kind}": {}, "arch_arm": {}, "arch_x86": {"msr_relaxed": "False"}})
    return info


def _knobs(settings: dict[str, Value]) -> JsonObject:
    pages = int(_number(settings, "sim_memory_pages", DEFAULT_PAGES))
    if pages < MIN_PAGES:
        raise ConfigProblem(f"sim_memory_pages is {pages}; at least {MIN_PAGES} are needed")
    return {
        "service": str(settings.get("sim_service", "")),
        "listener": str(settings.get("sim_listener", "")),
        "wire": str(settings.get("sim_wire", "")),
        "memory_pages": pages,
        "tick_ms": _number(settings, "sim_tick_ms", 10),
        "writes_per_tick": int(_number(settings, "sim_writes_per_tick", 10)),
    }


def _nic(index: int, spec: str) -> JsonObject:
    given = _pairs(spec)
    nic: JsonObject = {
        "devid": index,
        "mac": given.get("mac") or "00:16:3e:" + ":".join(f"{byte:02x}" for byte in os.urandom(3)),
        "bridge": given.get("bridge", "xenbr0"),
        "nictype": {"ioemu": "vif_ioemu"}.get(given.get("type", "vif"), given.get("type", "vif")),
    }
    for key, name in (("vifname", "ifname"), ("script", "script"), ("backend", "backend_domname")):
        if key in given:
            nic[name] = given[key]
    return nic


def _disk(_: int, spec: str) -> JsonObject:
    positional = [part for part in spec.split(",") if "=" not in part]
    given = _pairs(spec)
    target = given.get("target") or (positional[0] if positional else "")
    vdev = given.get("vdev") or (positional[1].split(":")[0] if len(positional) > 1 else "xvda")
    access = given.get("access") or (positional[2] if len(positional) > 2 else "rw")
    disk: JsonObject = {
        "pdev_path": target.removeprefix("phy:").removeprefix("file:"),
        "vdev": vdev,
        "format": given.get("format", "raw"),
        "readwrite": int("w" in access),
    }
    if "backend" in given:
        disk["backend_domname"] = given["backend"]
    return disk


def _pci(_: int, spec: str) -> JsonObject:
    return {"bdf": spec.partition(",")[0]}


def _pairs(spec: str) -> dict[str, str]:
    parts = (part.partition("=") for part in spec.split(","))
    return {key.strip(): value.strip() for key, equals, value in parts if equals}


def _number(settings: dict[str, Value], key: str, default: float) -> float:
    value = settings.get(key, default)
    if not isinstance(value, int | float):
        raise ConfigProblem(f"{key} must be a number")
    return value


def _value(text: str, number: int) -> Value:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        message = f"config parsing error near line {number}: syntax error: {text[:60]}"
        raise ConfigProblem(message) from error
    if isinstance(value, str | int | float | list):
        return value
    raise ConfigProblem(f"config parsing error near line {number}: not a value xl knows")


def _without_comment(line: str) -> str:
    quote = ""
    for index, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter == "#":
            return line[:index].rstrip()
    return line.strip()
