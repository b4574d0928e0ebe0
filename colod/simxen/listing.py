"""xl's commands that only look: `list`, `info`, `network-list`, and xenstore's reading tools."""

import json
import os
from typing import Any

from colod.simxen import control, lifecycle
from colod.simxen.control import DomainGone
from colod.simxen.host import Host
from colod.simxen.selection import find_domain
from colod.simxen.speech import fail, libxl_error, options, say

JsonObject = dict[str, Any]

DOM0_UUID = "00000000-0000-0000-0000-000000000000"
DOM0_CONFIG: JsonObject = {
    "c_info": {"type": "pv", "name": "Domain-0", "uuid": DOM0_UUID},
    "b_info": {
        "max_memkb": lifecycle.DOM0_MEMORY_MIB * 1024,
        "target_memkb": lifecycle.DOM0_MEMORY_MIB * 1024,
        "sched_params": {},
        "type.pv": {},
        "arch_arm": {},
        "arch_x86": {},
    },
}
DOM0: JsonObject = {
    "domid": 0,
    "name": "Domain-0",
    "memory_mib": lifecycle.DOM0_MEMORY_MIB,
    "vcpus": 1,
    "pauses": 0,
    "shutdown": None,
    "running": True,
    "built": True,
    "cpu_s": 10.0,
    "uuid": DOM0_UUID,
}


def list_domains(host: Host, arguments: list[str]) -> int:
    """Print a table of the domains, or their configurations as JSON with `-l`."""
    arguments = ["-l" if each == "--long" else each for each in arguments]
    found, rest = options(arguments, "lvZcn", "list", 0)
    infos = [DOM0, *control.domains(host)]
    if rest:
        domid = find_domain(host, rest[0])
        infos = [each for each in infos if each["domid"] == domid]
        if not infos:
            fail(f"Error: Domain '{rest[0]}' does not exist.")
    if "l" in found:
        configs = [config for each in infos if (config := _details(host, each)) is not None]
        print(json.dumps(configs, indent=4) if configs else "[\n\n]")
        return 0
    say_uuid = "v" in found
    tail = "   UUID                            Reason-Code\tSecurity Label" if say_uuid else ""
    print(f"{'Name':<40}    ID   Mem VCPUs\tState\tTime(s){tail}")
    for info in infos:
        print(_row(info) + (f" {info['uuid']} {'-':>8} {'-':>16}" if say_uuid else ""))
    return 0


def _details(host: Host, info: JsonObject) -> JsonObject | None:
    domid = int(info["domid"])
    if domid == 0:
        return {"domid": 0, "config": DOM0_CONFIG}
    try:
        if info["built"]:
            config = control.config_of(host, domid)
            config["c_info"]["domid"] = 0xFFFFFFFF
            return {"domid": domid, "config": config}
    except DomainGone:
        return None
    # libxl stores the configuration of a domain only after its restore.
    function = "retrieve_domain_configuration_lock_acquired"
    libxl_error(function, "Fail to get domain configuration", domid)
    return None


def _row(info: JsonObject) -> str:
    return (
        f"{info['name']:<40} {info['domid']:>5} {info['memory_mib']:>5} {info['vcpus']:>5}"
        f"     {state_letters(info)}  {info['cpu_s']:>8.1f}"
    )


def state_letters(info: JsonObject) -> str:
    """Return a domain's state as `xl list` writes it: rbpsRd, R being the shutdown's reason."""
    shutdown = info["shutdown"]
    is_idle = info["domid"] != 0 and info["running"]
    reason = "-" if shutdown is None else "-rscwS"[shutdown]
    return "".join(
        (
            "r" if info["domid"] == 0 else "-",
            "b" if is_idle else "-",
            "p" if info["pauses"] else "-",
            "-" if shutdown is None else "s",
            reason,
            "-",
        )
    )


def info(host: Host, arguments: list[str]) -> int:
    """Print what the hypervisor says of itself and of the machine."""
    _, rest = options(arguments, "nx", "info", 0)
    system = os.uname()
    free = lifecycle.free_memory_mib(host, control.domains(host))
    ballooning = "" if host.is_autoballooning else " dom0_mem=1024M,max:1024M"
    lines = {
        "host": host.name,
        "release": system.release,
        "version": system.version,
        "machine": system.machine,
        "nr_cpus": 1,
        "max_cpu_id": 0,
        "nr_nodes": 1,
        "cores_per_socket": 1,
        "threads_per_core": 1,
        "cpu_mhz": "2000.000",
        "hw_caps": "078bfbfd:80802001:2191abfd:00000005:00000000:00000000:00000000:00000000",
        "virt_caps": "pv hvm hap shadow",
        "total_memory": lifecycle.total_memory_mib(host),
        "free_memory": free,
        "sharing_freed_memory": 0,
        "sharing_used_memory": 0,
        "outstanding_claims": 0,
        "free_cpus": 0,
        "xen_major": 4,
        "xen_minor": 17,
        "xen_extra": ".0-simulated",
        "xen_version": "4.17.0-simulated",
        "xen_caps": "xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64",
        "xen_scheduler": "credit2",
        "xen_pagesize": 4096,
        "platform_params": "virt_start=0xffff800000000000",
        "xen_changeset": "",
        "xen_commandline": f"placeholder{ballooning} simulated",
        "cc_compiler": "simulated",
        "cc_compile_by": "colod",
        "cc_compile_domain": "",
        "cc_compile_date": "",
        "build_id": "0" * 40,
        "xend_config_format": 4,
    }
    if rest:
        if rest[0] in lines:
            print(lines[rest[0]])
        return 0
    print("\n".join(f"{key:<23}: {value}" for key, value in lines.items()))
    return 0


def network_list(host: Host, arguments: list[str]) -> int:
    """Print a domain's network interfaces."""
    _, rest = options(arguments, "", "network-list", 1)
    head = ("Idx", "BE", "Mac Addr.", "handle", "state", "evt-ch", "tx-", "rx-ring-ref", "BE-path")
    print("{:<3} {:<2} {:<17} {:<6} {:<5} {:<6} {:>5}/{:<5} {:<30}".format(*head))
    for wanted in rest:
        domid = find_domain(host, wanted)
        for path, fields in vif_backends(host, domid).items():
            handle = int(fields["handle"])
            print(
                f"{handle:<3d} {0:<2d} {fields['mac']}{handle:6d} {fields['state']:>5} {0:6d} "
                f"{0:5d}/{0:<11d} {path:<30}"
            )
    return 0


def vif_backends(host: Host, domid: int) -> dict[str, dict[str, str]]:
    """Return the xenstore backend directories of a domain's interfaces.

    A replica has none before its stream ends: libxl makes the devices after the restore.
    """
    try:
        config = control.config_of(host, domid)
        state = control.ask(host, domid, "info")
    except DomainGone:
        return {}
    if not state["built"]:
        return {}
    found = {}
    for nic in config.get("nics", []):
        number = nic["devid"]
        fields = {
            "frontend": f"/local/domain/{domid}/device/vif/{number}",
            "frontend-id": str(domid),
            "online": "1",
            "state": "4" if state["has_run"] else "2",
            "script": nic.get("script", "/etc/xen/scripts/vif-bridge"),
            "mac": nic["mac"],
            "bridge": nic["bridge"],
            "handle": str(number),
            "type": nic["nictype"],
            "hotplug-status": "connected",
        }
        if "ifname" in nic:
            fields["vifname"] = nic["ifname"]
        found[f"/local/domain/0/backend/vif/{domid}/{number}"] = fields
    return found


def xenstore(host: Host, arguments: list[str]) -> int:
    """Answer `read PATH`, `list PATH` and `ls [PATH]` from a store made up on the spot."""
    if not arguments or arguments[0] not in {"read", "list", "ls"}:
        fail("Usage: xenstore read|list|ls PATH")
    verb, paths = arguments[0], arguments[1:] or ["/"]
    store = _store(host)
    for path in paths:
        _answer(verb, path if path == "/" else path.rstrip("/"), store)
    return 0


def _answer(verb: str, path: str, store: dict[str, str]) -> None:
    prefix = path.rstrip("/") + "/"
    below = {key: value for key, value in store.items() if key.startswith(prefix)}
    if verb == "read":
        if path not in store and not below:
            fail(f"xenstore-read: couldn't read path {path}")
        print(store.get(path, ""))
        return
    if not below and path not in store:
        what = "xs_directory" if verb == "ls" else "could not list path"
        fail(f"xenstore-{verb}: {what} ({path}): No such file or directory")
    if verb == "list":
        for name in dict.fromkeys(key.removeprefix(prefix).split("/")[0] for key in below):
            print(name)
    else:
        _print_tree(prefix, below)


def _print_tree(prefix: str, below: dict[str, str]) -> None:
    shown: set[str] = set()
    for key in sorted(below):
        parts = key.removeprefix(prefix).split("/")
        for depth in range(len(parts)):
            path = prefix + "/".join(parts[: depth + 1])
            if path not in shown:
                shown.add(path)
                print(f'{" " * depth}{parts[depth]} = "{below.get(path, "")}"')


def _store(host: Host) -> dict[str, str]:
    store = {"/local/domain/0/name": "Domain-0", "/local/domain/0/domid": "0"}
    for each in control.domains(host):
        domid = each["domid"]
        base = f"/local/domain/{domid}"
        store[f"{base}/name"] = each["name"]
        store[f"{base}/domid"] = str(domid)
        store[f"{base}/vm"] = f"/vm/{each['uuid']}"
        store[f"{base}/memory/target"] = str(each["memory_mib"] * 1024)
        store[f"/vm/{each['uuid']}/name"] = each["name"]
        for path, fields in vif_backends(host, domid).items():
            store.update({f"{path}/{key}": value for key, value in fields.items()})
            # libxl's own copy, which a guest cannot write to.
            own = f"/libxl/{domid}/device/vif/{fields['handle']}"
            store.update({f"{own}/{key}": value for key, value in fields.items()})
            store[f"{own}/backend"] = path
            front = fields["frontend"]
            store[f"{front}/backend"] = path
            store[f"{front}/backend-id"] = "0"
            store[f"{front}/mac"] = fields["mac"]
            store[f"{front}/handle"] = fields["handle"]
            store[f"{front}/state"] = fields["state"]
    return store


def version(_: Host, __: list[str]) -> int:
    """Print what this is."""
    from colod import __version__

    say("colod-simxl: a simulated Xen")
    print(f"colod-simxl {__version__} (simulated xl 4.17)")
    return 0
