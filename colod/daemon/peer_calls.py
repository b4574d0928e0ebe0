"""Ask the peer's daemon without holding anything else up.

A peer that has taken a call and does not answer keeps a thread for as long as the call may last,
which is a minute and a half while it starts a receiver. What decisions wait for, its share in a
witness of kind `manual`, has threads of its own beside those.
"""

from __future__ import annotations

from typing import Final

from colod.threads import Threads

PEER_CALLS: Final = Threads("peer-call", 32)
"""For what begins and ends pairings, and for what operators ask; as many pairings begin at once."""

PEER_OFFERS: Final = Threads("peer-offer", 32)
"""For records that are offered to the peer; as many guests are decided about at once."""
