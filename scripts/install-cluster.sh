#!/usr/bin/env bash
# PgBouncer for its tests, and etcd for the cluster of `make bench-many`: Debian's packages, by name.
# Usage: install-cluster.sh [pgbouncer] [etcd]; without a word, both. What is there is left alone.
set -euo pipefail
wanted=()
for name in "${@:-pgbouncer etcd}"; do for one in $name; do
  PATH="$PATH:/usr/sbin" command -v "$one" >/dev/null || wanted+=("$one")
done; done
if [ "${#wanted[@]}" = 0 ]; then exit 0; fi
packages=("${wanted[@]/#etcd/etcd-server}")
if ! command -v apt-get >/dev/null; then
  echo "There is no apt-get here: install ${wanted[*]} by other means (Debian's packages: ${packages[*]})." >&2
  exit 1
fi
if [ "$(id -u)" = 0 ]; then as_root=(); elif command -v sudo >/dev/null; then as_root=(sudo); else
  echo "Needed: ${packages[*]}. Install these packages, as root." >&2
  exit 1
fi
echo "installing ${packages[*]} ..."
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
# We start our own, on free ports, for as long as we need them: the packages' services are not wanted.
if [ -d /run/systemd/system ]; then
  for one in "${wanted[@]}"; do "${as_root[@]}" systemctl disable --now --quiet "$one" || true; done
fi
