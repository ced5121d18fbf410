#!/bin/sh
# The whole suite in four parts side by side: the live tests wait most of their time for engines, leases and grace periods, the
# others compute. Each has its own databases and engines. What a part printed is shown once it has ended.
set -u
cd "$(dirname "$0")/.." || exit
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
trap 'kill $parts 2>/dev/null; wait; show; exit 130' INT TERM

show() {
  for name in others api doors live; do
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
cd tests/component/api || exit
doors=$(ls -d identity test_trpc* test_rest* test_openapi* test_schemathesis* test_generated* test_tenants* test_documented*)
cd - >/dev/null || exit
# shellcheck disable=SC2046,SC2086  # lists of words; what uses Node.js is in one part, which installs its packages
{
  part doors $(printf 'tests/component/api/%s ' $doors)
  part api tests/component/api $(printf -- '--ignore=tests/component/api/%s ' $doors)
}
part others tests/unit tests/property tests/component --ignore tests/component/api
failed=0
for running in $parts; do wait "$running" || failed=1; done
show
exit $failed
