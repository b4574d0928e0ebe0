"""The control plane: servers, clients, certificates, versions, and errors on the wire.

Importing this package sets gRPC's process-wide switches, which it reads when it is first imported:
its fork handlers would deadlock a daemon that starts commands, and its own log lines on standard
error would break the log's format.
"""

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
