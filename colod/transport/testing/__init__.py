"""A conformance suite for transports: what `colod.transport.base` promises, one check per promise.

It needs no test framework. A transport of a third party describes itself once and runs all of it:

    subject = Subject(
        sender=MyTransport.from_options(options_a, credentials_a),
        receiver=MyTransport.from_options(options_b, credentials_b),
        relay=Relay.over_tcp,                # if its connections are TCP's, to break them beneath
        strangers=strangers_over(dial_tcp),  # ditto, to knock at its listener
        proves_peer=True,                    # if it authenticates and protects its bytes
    )
    for name, verdict in asyncio.run(run_all(subject)).items():
        print(name, verdict or "ok")

or, with pytest: parametrise over the `CHECKS` for which `why_not` has no reason, and await
`run_check`. A check fails with `Nonconformity`, whose text says what was promised and what came.
Each check also demands that no descriptor and no task is left behind. No speed is asserted.
"""

from colod.transport.testing.bench import Bench, Nonconformity, Subject
from colod.transport.testing.relay import Relay, dial_tcp, dial_unix
from colod.transport.testing.strangers import strangers_over
from colod.transport.testing.suite import CHECKS, run_all, run_check, why_not

__all__ = [
    "CHECKS",
    "Bench",
    "Nonconformity",
    "Relay",
    "Subject",
    "dial_tcp",
    "dial_unix",
    "run_all",
    "run_check",
    "strangers_over",
    "why_not",
]
