#!/usr/bin/env bash
# The browser tests need Debian's Chromium, by its package's name. Where it is there, this does nothing.
set -euo pipefail
for name in chromium chromium-browser google-chrome; do
  if command -v "$name" >/dev/null; then exit 0; fi
done
if [ "$(id -u)" = 0 ]; then as_root=(); elif command -v sudo >/dev/null; then as_root=(sudo); else
  echo "The browser tests need Chromium: install the package chromium, as root." >&2
  exit 1
fi
echo "installing Chromium for the browser tests ..."
"${as_root[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
