"""Tab completion: Hydra's, for each verb."""

from __future__ import annotations

import os
import sys

from rl_runner import catalogue
from rl_runner.cli import help


def complete(args: list[str]) -> int:
    """Serve the shell: install or uninstall the hook, or answer it, taking the verb from the line being typed."""
    import hydra

    words = os.environ.get("COMP_LINE", "").split()
    verb = words[1] if len(words) > 1 and words[1] in help.VERBS else None
    if any(a.startswith("query=") for a in args):
        if verb is None:
            begun = words[1] if len(words) > 1 else ""
            print("\n".join(v for v in help.VERBS if v.startswith(begun)))
            return 0
        os.environ["COMP_LINE"] = os.environ["COMP_LINE"].replace(f" {verb}", "", 1)
    sys.argv = ["rlrun", *args]
    conf = str(catalogue.conf_dir())
    hydra.main(version_base="1.3", config_path=conf, config_name=verb or "train")(lambda cfg: None)()
    return 0
