"""The process that is one domain: its vCPU, its run state, its network.

Run state is kept as Xen keeps it: a count of the toolstack's pauses, a shutdown reason, dying.
The vCPU runs only while the count is zero, nothing is shut down, and its context was loaded.
"""

import contextlib
import json
import os
import selectors
import shutil
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colod.simxen.guest import KERNEL_PAGES, Guest, Machine
from colod.simxen.host import Host
from colod.simxen.network import Network
from colod.simxen.plug import Plug
from colod.simxen.settings import bridge_of

if TYPE_CHECKING:
    from colod.simxen.colo.nic import Nic

SHUTDOWN_POWEROFF = 0
SHUTDOWN_REBOOT = 1
SHUTDOWN_SUSPEND = 2
SHUTDOWN_CRASH = 3

MAX_PAUSES = 255
"""Xen refuses to count more pauses of the toolstack."""

LINGER_S = 0.3
"""How long a suspended guest's address stays bound: a checkpoint passes, a lost guest does not."""

HOUSEKEEPING_S = 0.5

JsonObject = dict[str, Any]


class Caller:
    """One connection of an xl command."""

    def __init__(self, connection: socket.socket) -> None:
        """Take over an accepted connection."""
        self.socket = connection
        self.received = b""

    def reply(self, fields: JsonObject) -> None:
        """Send one line; a caller that is gone does not matter."""
        with contextlib.suppress(OSError):
            self.socket.sendall((json.dumps(fields) + "\n").encode())


class Domain:
    """One domain; `run` returns when it was destroyed."""

    def __init__(self, host: Host, domid: int, control: socket.socket, *, is_built: bool) -> None:
        """Attach to the files in `domains/DOMID`; boots the guest if it is already built."""
        self._host = host
        self._domid = domid
        self._directory = host.root / "domains" / str(domid)
        text = (self._directory / "config.json").read_text(encoding="utf-8")
        self._config: JsonObject = json.loads(text)
        knobs = self._config.get("simulated", {})
        self._tick_s = float(knobs.get("tick_ms", 10)) / 1000
        # The world is on the bridge that the guest was created on, and on no other.
        is_in_world = knobs.get("bridge", "") == bridge_of(self._config)
        is_served = is_in_world and not knobs.get("wire")
        self._service = str(knobs.get("service", "")) if is_served else ""
        wire = str(knobs.get("wire", "")) if is_in_world else ""
        machine = Machine(self._directory)
        writes = int(knobs.get("writes_per_tick", 10))
        self._guest = Guest(machine, writes, KERNEL_PAGES if wire else 0)
        self._selector = selectors.DefaultSelector()
        self._network = Network(self._selector, _encode, self._answer)
        self._nic = self._on_wire(Path(wire), machine) if wire else None
        hears = is_in_world and knobs.get("listener")
        self._listener = Path(knobs["listener"]) if hears else None
        self._control = control
        self._is_built = is_built
        self._is_intact = True
        self._pauses = 1
        self._shutdown: int | None = None
        self._is_dying = False
        self._has_run = False
        self._cpu_s = 0.0
        self._stopped_at = 0.0
        self._suspend_delay_s = 0.0
        self._wish: int | None = None
        self._suspenders: list[Caller] = []
        self._watchers: list[Caller] = []
        self._callers: set[Caller] = set()
        if is_built:
            self._guest.boot()

    @property
    def is_running(self) -> bool:
        """Tell whether the vCPU runs."""
        return self._is_built and self._pauses == 0 and self._shutdown is None

    def _on_wire(self, wire: Path, machine: Machine) -> "Nic":
        """Return the interface of a guest that does nothing but answer what comes by a wire.

        So two copies that get the same requests do the same: its counter counts them, not time.
        """
        # Only here: every xl command imports this module, and most guests have no wire.
        from colod.simxen.colo.kernel import Kernel
        from colod.simxen.colo.nic import Nic

        mac = bytes.fromhex(str(self._config["nics"][0]["mac"]).replace(":", ""))
        kernel = Kernel(machine, self._answer_on_wire)
        who: JsonObject = {"root": str(self._host.root), "domid": self._domid}
        return Nic(
            self._selector,
            self._directory,
            wire,
            mac,
            kernel,
            lambda deliver, packet: self._network.send(deliver, self._vif, packet),
            who,
        )

    @property
    def _name(self) -> str:
        return str(self._config["c_info"]["name"])

    @property
    def _vif(self) -> str | None:
        nics = self._config.get("nics", [])
        return f"vif{self._domid}.{nics[0].get('devid', 0)}" if nics else None

    def run(self) -> None:
        """Serve until destroyed, or until the host's directory is gone."""
        self._control.setblocking(False)
        self._selector.register(self._control, selectors.EVENT_READ, self._accept)
        due = house = time.monotonic()
        while not self._is_dying:
            now = time.monotonic()
            if now >= house:
                if not self._host.exists:
                    break
                house = now + HOUSEKEEPING_S
            if self.is_running and now >= due:
                self._tick()
                # Ticks missed on a busy machine are not made up for: the vCPU did not run then.
                due = max(due + self._tick_s, now)
            self._sync_network(now)
            until = min(due, house) if self.is_running else min(house, now + LINGER_S)
            for key, _ in self._selector.select(max(0.0, until - time.monotonic())):
                action: Callable[[], None] = key.data
                action()
        self._end()

    def _tick(self) -> None:
        self._has_run = True
        if self._nic is None:
            self._guest.tick()
        self._cpu_s += self._tick_s
        if self._listener is not None:
            self._network.send(partial(_append, self._listener), self._vif, _encode(self._word()))
        # A kernel that is asked to suspend on its way down suspends first, and goes on down once
        # it is resumed: the wish outlives any number of checkpoints.
        if self._suspenders:
            time.sleep(self._suspend_delay_s)
            self._shut_down(SHUTDOWN_SUSPEND)
        elif self._wish is not None:
            self._shut_down(self._wish)

    def _shut_down(self, reason: int) -> None:
        self._shutdown = reason
        self._stopped_at = time.monotonic()
        for caller in self._suspenders:
            caller.reply({"ok": reason == SHUTDOWN_SUSPEND, "shutdown": reason})
        self._suspenders = []
        for caller in self._watchers:
            caller.reply({"event": "shutdown", "reason": reason})

    def _sync_network(self, now: float) -> None:
        # Called with every change of state, before anything is read: no request reaches a vCPU
        # that does not run.
        if self.is_running and self._has_run:
            self._network.listen(self._service, self._vif, self._observer_path())
        elif self._pauses or self._shutdown is None or now > self._stopped_at + LINGER_S:
            self._network.unlisten()
        self._network.serve(self.is_running)
        if self._nic is not None:
            self._nic.serve(self.is_running and self._has_run, now)

    def _observer_path(self) -> Path:
        return self._host.root / "guests" / f"{self._name}.sock"

    def _identity(self) -> JsonObject:
        return {
            "simulated": True,
            "domain": self._name,
            "boot_id": self._guest.boot_id,
            "counter": self._guest.counter,
        }

    def _word(self) -> JsonObject:
        """Return what the guest says unasked, with each tick."""
        return {**self._identity(), "domid": self._domid, "root": str(self._host.root)}

    def _answer(self, request: str) -> JsonObject:
        fields = {**self._identity(), "intact": self._is_intact, "host": self._host.name}
        if request in {"poweroff", "reboot"}:
            self._wish = SHUTDOWN_POWEROFF if request == "poweroff" else SHUTDOWN_REBOOT
            fields["doing"] = request
        elif request != "get":
            fields["error"] = f"unknown request: {request[:40]}"
        return fields

    def _answer_on_wire(self, request: str) -> bytes:
        """Answer as every copy with the same state does, whatever host it is on."""
        self._guest.tick()
        fields = self._answer(request)
        for key in ("domain", "host"):
            del fields[key]
        return _encode(fields)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._control.accept()
            caller = Caller(connection)
            self._callers.add(caller)
            self._selector.register(connection, selectors.EVENT_READ, lambda: self._read(caller))

    def _read(self, caller: Caller) -> None:
        try:
            got = caller.socket.recv(65536)
        except OSError:
            got = b""
        if not got:
            self._forget(caller)
            return
        caller.received += got
        while b"\n" in caller.received:
            line, _, caller.received = caller.received.partition(b"\n")
            request: JsonObject = json.loads(line)
            self._dispatch(caller, request)
            self._sync_network(time.monotonic())

    def _forget(self, caller: Caller) -> None:
        self._selector.unregister(caller.socket)
        caller.socket.close()
        self._callers.discard(caller)
        if caller in self._watchers:
            self._watchers.remove(caller)
        if caller in self._suspenders:
            self._suspenders.remove(caller)

    def _dispatch(self, caller: Caller, request: JsonObject) -> None:
        command = str(request.get("command"))
        deferred = {"suspend": self._ask_suspend, "watch": self._add_watcher}
        if command in deferred:
            deferred[command](caller)
            return
        immediate: dict[str, Callable[[JsonObject], JsonObject]] = {
            "info": lambda _: self._info(),
            "pause": lambda _: self._pause(),
            "unpause": lambda _: self._unpause(),
            "resume": lambda _: self._resume(),
            "built": lambda _: self._built(),
            "destroy": lambda _: self._destroy(),
            "rename": self._rename,
            "shutdown": self._ask_shutdown,
            "plug": self._plug,
            "knob": self._knob,
            "reload": lambda _: self._reload(),
            "filters": self._filters,
            "diverge": lambda _: self._diverge(),
        }
        action = immediate.get(command)
        caller.reply(action(request) if action else {"ok": False, "error": "unknown command"})

    def _ask_suspend(self, caller: Caller) -> None:
        if self._shutdown is not None:
            caller.reply({"ok": self._shutdown == SHUTDOWN_SUSPEND, "shutdown": self._shutdown})
            return
        self._suspenders.append(caller)

    def _add_watcher(self, caller: Caller) -> None:
        self._watchers.append(caller)
        if self._shutdown is not None:
            caller.reply({"event": "shutdown", "reason": self._shutdown})

    def _info(self) -> JsonObject:
        return {
            "domid": self._domid,
            "name": self._name,
            "uuid": self._config["c_info"].get("uuid", ""),
            "memory_mib": int(self._config["b_info"]["target_memkb"]) // 1024,
            "vcpus": self._config["b_info"].get("max_vcpus", 1) if self._is_built else 0,
            "pauses": self._pauses,
            "shutdown": self._shutdown,
            "running": self.is_running,
            "built": self._is_built,
            "has_run": self._has_run,
            "cpu_s": self._cpu_s,
            "boot_id": self._guest.boot_id,
            "counter": self._guest.counter,
            "intact": self._is_intact,
            "pid": os.getpid(),
        }

    def _pause(self) -> JsonObject:
        if self._pauses >= MAX_PAUSES:
            return {"ok": False, "error": "Value too large for defined data type"}
        self._pauses += 1
        return {"ok": True}

    def _unpause(self) -> JsonObject:
        if self._pauses == 0:
            return {"ok": False, "error": "Invalid argument"}
        self._pauses -= 1
        return {"ok": True}

    def _resume(self) -> JsonObject:
        if self._shutdown != SHUTDOWN_SUSPEND:
            return {"ok": False, "shutdown": self._shutdown}
        self._shutdown = None
        return {"ok": True}

    def _built(self) -> JsonObject:
        self._is_built = True
        return self._reload()

    def _reload(self) -> JsonObject:
        """Take over the state that was written into memory and vCPU."""
        self._guest.load()
        self._is_intact = self._guest.is_intact()
        if self._nic is not None:
            self._nic.loaded()
        return {"ok": True, "intact": self._is_intact}

    def _filters(self, request: JsonObject) -> JsonObject:
        if self._nic is None:
            return {"ok": False, "error": "no filters: the guest has no wire (sim_wire)"}
        if "use" in request:
            self._nic.use(str(request["use"]))
        return {"ok": True, "vif": self._vif, **self._nic.summary()}

    def _diverge(self) -> JsonObject:
        # As if chance had gone another way in this copy: nothing that came in explains it.
        self._guest.tick()
        return {"ok": True, "counter": self._guest.counter}

    def _destroy(self) -> JsonObject:
        self._is_dying = True
        return {"ok": True}

    def _rename(self, request: JsonObject) -> JsonObject:
        self._network.unlisten()
        self._config["c_info"]["name"] = request["name"]
        temporary = self._directory / "config.json.new"
        temporary.write_text(json.dumps(self._config, indent=4) + "\n", encoding="utf-8")
        temporary.rename(self._directory / "config.json")
        return {"ok": True}

    def _ask_shutdown(self, request: JsonObject) -> JsonObject:
        self._wish = int(request["reason"])
        return {"ok": True}

    def _plug(self, request: JsonObject) -> JsonObject:
        vif, action = str(request["vif"]), str(request["action"])
        plugs = self._network.plugs
        if action == "add":
            plugs[vif] = Plug()
        elif vif not in plugs:
            return {"ok": False, "error": f"no plug on {vif}"}
        elif action == "limit":
            plugs[vif].limit(int(request["bytes"]))
        elif action in {"buffer", "release_one", "release_indefinite"}:
            getattr(plugs[vif], action)()
        self._network.flush(vif)
        if action == "del":
            plugs[vif].release_indefinite()
            self._network.flush(vif)
            del plugs[vif]
            return {"ok": True}
        return {"ok": True, **plugs[vif].summary()}

    def _knob(self, request: JsonObject) -> JsonObject:
        self._suspend_delay_s = float(request["suspend_delay_s"])
        return {"ok": True}

    def _end(self) -> None:
        if self._nic is not None:
            self._nic.close()
        self._network.close()
        self._control.close()
        # The directory goes before the callers' connections: whoever waits for the end of a
        # `destroy` finds the domain and its memory gone.
        shutil.rmtree(self._directory, ignore_errors=True)
        self._host.unregister()
        for caller in self._callers:
            caller.socket.close()


def _encode(fields: JsonObject) -> bytes:
    return (json.dumps(fields) + "\n").encode()


def _append(listener: Path, packet: bytes) -> None:
    """Add a packet, of at most PIPE_BUF bytes to stay whole, to the file that hears all copies."""
    with contextlib.suppress(OSError), listener.open("ab", buffering=0) as file:
        file.write(packet)


def main(arguments: list[str]) -> None:
    """Be the domain that `HOST_DIRECTORY DOMID LISTENER_FD IS_BUILT` describe."""
    root, domid, listener, is_built = arguments
    Path("/proc/self/comm").write_text(f"simxen-dom{domid}", encoding="ascii")
    control = socket.socket(fileno=int(listener))
    Domain(Host(Path(root)), int(domid), control, is_built=is_built == "1").run()
