"""A model of two hosts, their Xen, the witness and the network, for the explorer.

It is what the promises are checked against, so it is no kinder than the real things: xl unpauses
at the end of a stream, pauses are counted, a killed sender makes xl resume the guest, a killed xl
leaves it suspended, writes to the witness may land late, any process may die between a journal
entry and its effect, and an effect of several steps may stop between them. Accidents are bounded in
number; repairs are free.
"""

from __future__ import annotations

from colod.failover.world.faults import KINDS
from colod.failover.world.model import Model
from colod.failover.world.state import Bounds

__all__ = ["KINDS", "Bounds", "Model"]
