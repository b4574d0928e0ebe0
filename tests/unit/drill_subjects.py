"""What the tests of drills have in common: a protection in order, as its primary sees it."""

from __future__ import annotations

from colod.failover.view import Answer, Contact, Journal, Replica, View
from colod.model import Role
from tests.unit.test_failover_quarantine import ALPHA, PAIRED, PAIRING, TERMS

GUEST = TERMS.guest
JOURNAL = Journal(protection=TERMS, host=ALPHA, role=Role.PRIMARY, record=PAIRED, pairing=PAIRING)
VIEW = View(
    journal=JOURNAL,
    boot="b",
    new_id="",
    answer=Answer.READ,
    contact=Contact.UP,
    peer_replica=Replica.FOLLOWING,
    acked_epoch=9,
)
