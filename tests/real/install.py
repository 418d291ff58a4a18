"""Install the agents' programs into a cache folder: ``python -m tests.real.install``.

``ASB_E2E_CACHE`` names the folder (else ``~/.cache/asb-e2e``). Their newest versions are asked for,
whatever Node.js says of itself; what is there already is kept for a day.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

PACKAGES = {
    "claude": "@anthropic-ai/claude-code@latest",
    "codex": "@openai/codex@latest",
    "gemini": "@google/gemini-cli@latest",
}
KEPT_S = 24 * 3600


def folder() -> Path:
    """Where they are installed."""
    named = os.environ.get("ASB_E2E_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "asb-e2e"


def programs() -> Path:
    """The folder for PATH."""
    return folder() / "node_modules" / ".bin"


def main() -> int:
    mark = folder() / ".installed"
    present = all((programs() / name).exists() for name in PACKAGES)
    if present and mark.exists() and time.time() - mark.stat().st_mtime < KEPT_S:
        return 0
    if shutil.which("npm") is None:
        sys.stderr.write("make e2e needs Node.js ≥ 20 with npm (Debian: apt install nodejs npm)\n")
        return 1
    folder().mkdir(parents=True, exist_ok=True)
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder())]
    done = subprocess.run([*command, *PACKAGES.values()], check=False, timeout=900)
    if done.returncode:
        return done.returncode
    # npm may not run scripts of packages: this one only puts its program into place.
    script = folder() / "node_modules" / "@anthropic-ai" / "claude-code" / "install.cjs"
    if script.exists():
        subprocess.run(["node", script.name], cwd=script.parent, check=False, timeout=300)
    mark.touch()
    for name in PACKAGES:
        subprocess.run([str(programs() / name), "--version"], check=False, timeout=60)
    return 0


if __name__ == "__main__":
    sys.exit(main())
