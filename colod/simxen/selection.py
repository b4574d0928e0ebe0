"""How xl finds the domain that a command names."""

from colod.simxen import control
from colod.simxen.host import Host
from colod.simxen.speech import ERROR_INVAL, fail


def find_domain(host: Host, wanted: str) -> int:
    """Return the domid for a name or a number; a number is not checked to exist, as in xl."""
    if wanted.isdigit():
        return int(wanted)
    if wanted == "Domain-0":
        return 0
    domid = control.find_by_name(host, wanted)
    if domid is None:
        fail(f"{wanted} is an invalid domain identifier (rc={ERROR_INVAL})")
    return domid
