#!/bin/sh
# The whole suite in three parts side by side: the live tests wait most of their time for engines, leases and grace periods, the
# others compute. Each has its own databases and engines. What a part printed is shown once it has ended.
set -u
cd "$(dirname "$0")/.." || exit
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
trap 'kill $parts 2>/dev/null; wait; show; exit 130' INT TERM

show() {
  for name in others api live; do
    echo "==> tests: $name"
    cat "$logs/$name"
  done
}

part() { # NAME pytest arguments
  name=$1
  shift
  .venv/bin/python -m pytest -p no:cacheprovider "$@" >"$logs/$name" 2>&1 &
  parts="$parts $!"
}

parts=
part live tests/live
part api tests/component/api
part others tests/unit tests/property tests/component --ignore tests/component/api
failed=0
for running in $parts; do wait "$running" || failed=1; done
show
exit $failed
