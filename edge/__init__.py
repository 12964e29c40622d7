"""The box beside the line: runtime, follower and the `lineside` command."""

import os
from typing import Final

# Before pydantic is imported, which reads both: no plugin of it is looked for in all that is installed, and that time
# zones lie where they lie by default is not looked up in how Python was built, which takes 0.7 MiB.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "true")
os.environ.setdefault("PYTHONTZPATH", "/usr/share/zoneinfo:/usr/lib/zoneinfo:/usr/share/lib/zoneinfo:/etc/zoneinfo")

__version__: Final = "0.1.0"
