"""The daemon's configuration: schema, files, and where each value came from.

Nothing below `daemon`, `rpc` and `cli` sees it: it is turned into arguments.
"""

from colod.config.files import DEFAULT_PATH, config_files, exposed_files, flatten, load_config
from colod.config.schema import Config, split_address

__all__ = [
    "DEFAULT_PATH",
    "Config",
    "config_files",
    "exposed_files",
    "flatten",
    "load_config",
    "split_address",
]
