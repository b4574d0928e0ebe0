"""Chaos on the simulated Xen: real daemons, sessions, etcd, disks and network namespaces.

    network.py   three namespaces and the links between them, to be cut in one way or both
    disk.py      a file system that can stand still or be full
    words.py     what the copies of the guest said, in order: who broke the promise?
    arena.py     the two hosts and the witness on all of that
    faults.py    what may go wrong
    rounds.py    one round: faults by its seed, then everything mended, and what became of it

`python -m tests.scenarios FIRST COUNT` runs rounds one after the other.
"""
