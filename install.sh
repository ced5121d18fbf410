#!/bin/sh
# Argosy's installer: puts the coordinator, the agent or both on a Debian or Ubuntu machine, and takes them away again.
#
#   sudo ./install.sh up          all of Argosy on this machine, with an example container
#   ./install.sh --help           the other verbs
#
# It works from a checkout, may be run again at any time, and says each step in one line.
set -eu
umask 022

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
home=/opt/argosy
venv=$home/venv
settings=/etc/argosy
state=/var/lib/argosy
run=/run/argosy
logs=/var/log/argosy
units=/etc/systemd/system
token_file=$state/coordinator/admin-token
example_image=argosy-example:1

# ---- help ------------------------------------------------------------------------------------------------------------------

help_all() {
  cat <<'TEXT'
usage: install.sh VERB [options]

  up            coordinator, agent and an example container on this machine
  status        what is installed and running here
  down          stop coordinator and agent; with --purge remove everything
  coordinator   only a coordinator, for nodes on other machines
  agent         only an agent, for a coordinator on another machine
  test          run the linters and the test suite from this checkout

`install.sh VERB --help` tells more. All verbs but status need root.
TEXT
}

help_up() {
  cat <<'TEXT'
usage: install.sh up [--yes] [--bind HOST:PORT] [--url URL] [--no-example]

Turns a fresh Debian or Ubuntu machine into a whole Argosy: system packages (and Docker, unless an engine answers), the
programs in /opt/argosy, a coordinator on SQLite at http://127.0.0.1:8420, an agent enrolled with it, and an example
container with two replicas. Services run under systemd, or under a small supervisor where systemd is not PID 1.
Running it again repairs and updates; what runs keeps running.

  --yes               do not ask before changing the machine (without a terminal it never asks)
  --bind HOST:PORT    where the coordinator listens; for agents on other machines, such as 0.0.0.0:8420
  --url URL           the address those agents use, such as https://argosy.example.org; it goes into join commands
  --no-example        leave the example container out

ARGOSY_DOCKER_HOST in the environment names another engine than unix:///var/run/docker.sock.
TEXT
}

help_status() {
  cat <<'TEXT'
usage: install.sh status

One line each for the services, the coordinator's health and the containers on this machine.
Exit status: 0 when all that is installed runs, 3 when something does not, 4 when nothing is installed.
TEXT
}

help_down() {
  cat <<'TEXT'
usage: install.sh down [--purge] [--yes]

Stops coordinator and agent, now and at the next boot. Containers keep running, and `up` finds them again.

  --purge    also remove Argosy's containers and volumes, /opt/argosy, /etc/argosy, /var/lib/argosy with all data, the units and the
             user argosy. System packages stay. Asks first.
  --yes      do not ask
TEXT
}

help_coordinator() {
  cat <<'TEXT'
usage: install.sh coordinator [--bind HOST:PORT] [--url URL] [--database-url URL]

Installs and starts a coordinator. What was given once is kept in /etc/argosy/coordinator.env.

  --bind HOST:PORT      where it listens; default 127.0.0.1:8420
  --url URL             the address agents and people use, such as https://argosy.example.org; default http://HOST:PORT
  --database-url URL    such as postgresql://user:password@host/argosy; default SQLite in /var/lib/argosy/coordinator.
                        ARGOSY_DATABASE_URL in the environment says the same, without showing in a list of processes
TEXT
}

help_agent() {
  cat <<'TEXT'
usage: install.sh agent --coordinator URL [--join TOKEN] [--address IP] [--label KEY=VALUE …]

Installs an agent, enrols this machine as a node and starts it. Installs Docker unless an engine answers.

  --coordinator URL      such as https://argosy.example.org
  --join TOKEN           a join token of the cluster, needed the first time; `--join -` reads it from standard input, so that
                         it never shows in a list of processes
  --address IP           the address under which this node's containers are reached; default: the agent finds out
  --label KEY=VALUE      a label of the node, for placement; may be given several times
TEXT
}

help_test() {
  cat <<'TEXT'
usage: install.sh test [pytest arguments]

Installs what the tests need, makes the environment .venv in this checkout, and runs `make check` and `make test`.
The tests start private Docker Engines of their own and leave the machine's alone.
TEXT
}

# ---- words -----------------------------------------------------------------------------------------------------------------

step() { printf '==> %s\n' "$*"; }
say() { printf '%s\n' "$*"; }
die() {
  printf 'install.sh: %s\n' "$*" >&2
  exit 1
}

# Runs a command whose output matters only when it fails.
quietly() {
  if ! output=$("$@" 2>&1 </dev/null); then
    printf '%s\n' "$output" >&2
    die "this failed: $*"
  fi
}

# wait_for SECONDS COMMAND…: once a second until it succeeds
wait_for() {
  deadline=$(($(date +%s) + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$(date +%s)" -lt "$deadline" ] || return 1
    sleep 1
  done
}

confirm() { # QUESTION
  printf '%s [y/N] ' "$1"
  read -r answer || answer=
  case $answer in [yY]*) ;; *) die "nothing was changed" ;; esac
}

# ---- checks ----------------------------------------------------------------------------------------------------------------

check_root() { [ "$(id -u)" -eq 0 ] || die "$verb needs root: sudo $0 $verb"; }

check_system() {
  os=$(sed -n 's/^ID\(_LIKE\)\{0,1\}=//p' /etc/os-release 2>/dev/null | tr -d '"' | xargs)
  case " $os " in
  *" debian "* | *" ubuntu "*) ;;
  *) die "this system is '${os:-unknown}'; the installer knows Debian 12 and Ubuntu 24.04 and later" ;;
  esac
}

check_python() {
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "Python 3.11 or later is needed, $(python3 --version 2>&1) is here; Debian 12 and Ubuntu 24.04 have it"
}

check_disk() { # the programs take 0.2 GB, Docker as much, and a node needs room for images
  for directory in /opt /var; do
    free=$(df -Pk "$directory" | awk 'NR == 2 { print int($4 / 1024) }')
    [ "$free" -ge 2048 ] || die "$directory has $free MB free, 2048 MB are needed"
  done
}

listening() { # PORT; state 0A is LISTEN
  grep -qi "^ *[0-9]*: [0-9A-F]*:$(printf %04X "$1") [0-9A-F:]* 0A " /proc/net/tcp /proc/net/tcp6 2>/dev/null
}

our_port() { # PORT
  case $(coordinator_url) in *":$1") service_runs coordinator ;; *) return 1 ;; esac
}

check_port() {
  port=${bind##*:}
  case $port in '' | *[!0-9]*) die "--bind takes HOST:PORT, not '$bind'" ;; esac
  if listening "$port" && ! our_port "$port"; then
    die "port $port is taken by another program: stop that one, or choose another with --bind 127.0.0.1:PORT"
  fi
}

check_machine() {
  check_root
  check_system
  if command -v python3 >/dev/null; then check_python; fi
  check_disk
}

# ---- system packages and Docker --------------------------------------------------------------------------------------------

installed() { dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }

need_packages() { # PACKAGE…
  missing=
  for package in "$@"; do installed "$package" || missing="$missing $package"; done
  [ -n "$missing" ] || return 0
  step "Installing system packages:$missing"
  export DEBIAN_FRONTEND=noninteractive
  quietly apt-get -q update
  # shellcheck disable=SC2086  # a list of words
  quietly apt-get -q -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $missing
}

docker_api() { # PATH [curl options]
  path=$1
  shift
  curl -sS --fail-with-body --unix-socket "${docker_host#unix://}" "$@" "http://docker$path"
}

engine_answers() { docker_api /_ping >/dev/null 2>&1; }

need_engine() {
  engine_answers && return
  command -v dockerd >/dev/null || need_packages docker.io
  step "Starting the Docker Engine"
  if has_systemd; then
    quietly systemctl enable --now docker
  else # Debian's init script gives up where it may not mount cgroups, as in many containers; the engine itself does not
    service docker start >/dev/null 2>&1 || setsid dockerd >>/var/log/docker.log 2>&1 </dev/null &
  fi
  wait_for 60 engine_answers || die "no Docker Engine answers at $docker_host: look at its log, then run this again"
}

argosy_containers() { # ids, one a line
  docker_api /containers/json -G -d all=1 --data-urlencode 'filters={"label":["argosy.node"]}' |
    grep -o '"Id":"[0-9a-f]*"' | cut -d'"' -f4
}

argosy_volumes() { # names, one a line
  docker_api /volumes -G --data-urlencode 'filters={"label":["argosy.node"]}' | grep -o '"Name":"[^"]*"' | cut -d'"' -f4
}

# ---- programs --------------------------------------------------------------------------------------------------------------

install_programs() { # LOCK
  step "Installing the programs to $home"
  "$venv/bin/python" -m pip --version >/dev/null 2>&1 || python3 -m venv --clear "$venv" # also after the system's Python has changed
  pip_install "$venv" "$here/requirements/$1.lock" "$here"
  install -m 755 "$here/systemd/backoff" "$here/systemd/supervise" "$home/"
  install -d -m 755 "$settings" "$state"
}

pip_install() { # VENV LOCK PROJECT…: what the lock names with its hashes, then the project itself without asking further
  pip="$1/bin/pip --disable-pip-version-check"
  lock=$2
  shift 2
  # shellcheck disable=SC2086  # a program and its option
  quietly $pip install --require-hashes -r "$lock"
  # shellcheck disable=SC2086
  quietly $pip install --no-index --no-deps --no-build-isolation "$@"
}

need_user() {
  id argosy >/dev/null 2>&1 && return
  step "Adding the system user argosy"
  useradd --system --user-group --no-create-home --home-dir "$state" --shell /usr/sbin/nologin argosy
}

# The settings files are read by systemd and by sh, so values stand in single quotes, where both take them literally.
set_setting() { # FILE NAME VALUE
  case $3 in *"'"*) die "a single quote cannot be part of $2" ;; esac
  (
    umask 077
    { grep -v "^$2=" "$1" 2>/dev/null || :; } >"$1.new"
    printf "%s='%s'\n" "$2" "$3" >>"$1.new"
    mv "$1.new" "$1"
  )
}

drop_setting() { # FILE NAME
  sed -i "/^$2=/d" "$1"
}

setting() { # FILE NAME
  sed -n "s/^$2='\(.*\)'\$/\1/p" "$1" 2>/dev/null || :
}

# ---- services: systemd, or `supervise` where systemd is not PID 1 ----------------------------------------------------------

has_systemd() { [ -d /run/systemd/system ]; }

start_service() { # NAME
  step "Starting argosy-$1"
  if has_systemd; then
    install -m 644 "$here/systemd/argosy-$1.service" "$units/"
    systemctl daemon-reload
    systemctl enable --quiet "argosy-$1"
    systemctl restart "argosy-$1" || explain_failure "$1"
  else
    stop_service "$1"
    install -d -m 700 "$logs"
    setsid "$home/supervise" "$1" >>"$logs/$1.log" 2>&1 </dev/null &
  fi
}

stop_service() { # NAME
  if has_systemd; then
    systemctl disable --quiet --now "argosy-$1" 2>/dev/null || :
  elif service_runs "$1"; then
    supervisor=$(cat "$run/$1/pid")
    kill "$supervisor"
    wait_for 15 not service_runs "$1" || kill -KILL -- "-$supervisor"
    rm -rf "${run:?}/$1"
  fi
}

service_runs() { # NAME
  if has_systemd; then
    systemctl is-active --quiet "argosy-$1"
  else
    process_is "$run/$1/pid" "supervise $1"
  fi
}

program_runs() { # NAME; not while it waits for its next start
  if has_systemd; then service_runs "$1"; else process_is "$run/$1/program" "argosy-$1"; fi
}

process_is() { # PID-FILE TEXT-OF-ITS-COMMAND-LINE
  tr '\0' ' ' 2>/dev/null <"/proc/$(cat "$1" 2>/dev/null)/cmdline" | grep -q "$2"
}

not() { ! "$@"; }

log_mark() { # NAME; from here on is what `log_since` shows
  if has_systemd; then date +%s; else wc -c <"$logs/$1.log" 2>/dev/null || echo 0; fi
}

log_since() { # NAME MARK
  if has_systemd; then
    journalctl --no-pager -o cat --since "@$2" -u "argosy-$1"
  else
    tail -c "+$(($2 + 1))" "$logs/$1.log"
  fi
}

service_log() { # NAME
  if has_systemd; then journalctl --no-pager -o cat -n 20 -u "argosy-$1"; else tail -n 20 "$logs/$1.log"; fi
}

explain_failure() { # NAME
  service_log "$1" >&2 || :
  die "argosy-$1 does not come up; the last lines of its log are above"
}

# ---- the API ---------------------------------------------------------------------------------------------------------------

coordinator_url() {
  address=$(setting "$settings/coordinator.env" ARGOSY_BIND)
  case $address in
  0.0.0.0:* | \[::\]:*) echo "http://127.0.0.1:${address##*:}" ;;
  *) echo "http://${address:-127.0.0.1:8420}" ;;
  esac
}

healthy() { curl -fsS --max-time 5 "$1/api/system.health"; } # URL

# ask PROCEDURE [curl options]: calls one procedure as the admin; the token travels on standard input, unseen by ps
ask() {
  procedure=$1
  shift
  printf 'Authorization: Bearer %s\n' "$(cat "$token_file")" |
    curl -sS --fail-with-body --max-time 20 -H @- -H 'Content-Type: application/json' "$@" "$(coordinator_url)/api/$procedure"
}

# pick EXPRESSION: what a Python expression makes of the `data` in the answer on standard input
pick() {
  "$venv/bin/python" -c '
import json, sys
answer = json.loads(sys.stdin.read() or "{}")
if "result" not in answer:
    sys.exit("the coordinator says: " + answer.get("error", {}).get("message", "nothing"))
data = answer["result"]["data"]
print(eval(sys.argv[1]))' "$1"
}

default_organization() { ask organization.all | pick 'data[0]["id"]'; }
default_project() { ask "project.all?organizationId=$(default_organization)" | pick 'data[0]["id"]'; }
default_cluster() { ask "cluster.all?organizationId=$(default_organization)" | pick 'data[0]["id"]'; }

# ---- coordinator and agent -------------------------------------------------------------------------------------------------

setup_coordinator() {
  need_user
  install -d -m 700 -o argosy -g argosy "$state/coordinator"
  file=$settings/coordinator.env
  set_setting "$file" ARGOSY_BIND "$bind"
  set_setting "$file" ARGOSY_DATA_DIR "$state/coordinator"
  [ -z "$public_url" ] || set_setting "$file" ARGOSY_URL "$public_url"
  [ -z "$database_url" ] || set_setting "$file" ARGOSY_DATABASE_URL "$database_url"
  start_service coordinator
  wait_for 60 healthy "$(coordinator_url)" || explain_failure coordinator
  wait_for 10 test -s "$token_file" || explain_failure coordinator
}

# The agent writes its keys before it first connects, and the id of its node once the coordinator has taken it in.
enrolled() { grep -qs '"node_id": *"' "$state/agent/identity.json"; }

setup_agent() { # COORDINATOR-URL JOIN-TOKEN
  install -d -m 700 "$state/agent"
  file=$settings/agent.env
  set_setting "$file" ARGOSY_COORDINATOR "$1"
  set_setting "$file" ARGOSY_STATE_DIR "$state/agent"
  set_setting "$file" ARGOSY_DOCKER_HOST "$docker_host"
  [ -z "$address" ] || set_setting "$file" ARGOSY_ADDRESS "$address"
  [ -z "$labels" ] || set_setting "$file" ARGOSY_LABELS "$labels"
  [ -z "$2" ] || set_setting "$file" ARGOSY_JOIN "$2"
  agent_mark=$(log_mark agent)
  start_service agent
}

# Said by this start of the agent: being enrolled only shows that some coordinator took it in once.
linked() { log_since agent "$agent_mark" | grep -q '"link.connected"'; }

enrol() { # COORDINATOR-URL JOIN-TOKEN, the token empty when enrolled already
  setup_agent "$1" "$2"
  enrolled || step "Enrolling this machine as a node"
  wait_for 60 enrolled || explain_failure agent
  wait_for 60 linked || explain_failure agent
  drop_setting "$settings/agent.env" ARGOSY_JOIN
}

# The installer of `up` is the coordinator's admin, so it fetches the join token itself.
new_join_token() {
  ask cluster.joinToken -d "{\"clusterId\": \"$(default_cluster)\", \"role\": \"worker\"}" | pick 'data["token"]'
}

# ---- the example -----------------------------------------------------------------------------------------------------------

build_example() {
  docker_api "/images/$example_image/json" >/dev/null 2>&1 && return
  step "Building the image $example_image from $here/example"
  context=$(mktemp -d)
  cp "$here/example/Dockerfile" "$here/example/index.html" "$(command -v busybox)" "$context"
  built=$(tar -C "$context" -c . | docker_api "/build?t=$example_image" -H 'Content-Type: application/x-tar' --data-binary @-) || :
  rm -rf "$context"
  docker_api "/images/$example_image/json" >/dev/null 2>&1 || die "the example image cannot be built: $built"
}

example_id() { ask "container.all?projectId=$1" | pick 'next((c["id"] for c in data if c["name"] == "example"), "")'; } # PROJECT-ID

create_example() { # PROJECT-ID; prints the container's id
  body=$(printf '{"projectId": "%s", "clusterId": "%s", "name": "example", "image": "%s", "port": 8080, "replicas": 2, %s}' \
    "$1" "$(default_cluster)" "$example_image" '"healthCheck": {"path": "/", "port": 8080, "interval": 2}')
  ask container.create -d "$body" | pick 'data["id"]'
}

example_addresses() { # CONTAINER-ID; HOST:PORT of the healthy instances, one a line
  ask "container.one?containerId=$1&waitFor=running&timeout=15" |
    pick '"\n".join("%(address)s:%(hostPort)s" % p for i in data["instances"] if i["health"] == "healthy" for p in i["ports"])'
}

example_answers() { # CONTAINER-ID
  addresses=$(example_addresses "$1")
  [ "$(printf '%s\n' "$addresses" | grep -c :)" -ge 2 ] || return 1
  for one in $addresses; do curl -fsS --max-time 5 "http://$one/" || return 1; done
}

run_example() { # sets `example` to the container's id
  build_example
  project=$(default_project)
  example=$(example_id "$project")
  if [ -z "$example" ]; then
    step "Creating the container example with two replicas"
    example=$(create_example "$project")
  fi
  step "Waiting until both replicas of example are healthy and answer"
  wait_for 120 example_answers "$example" ||
    die "example is not healthy: $(ask "container.one?containerId=$example" | pick 'data["status"], data.get("reason")')"
}

# ---- verbs -----------------------------------------------------------------------------------------------------------------

do_up() {
  check_machine
  check_port
  [ -n "$yes" ] || [ ! -t 0 ] || confirm "Install Argosy in $home on this machine, with Docker if it is missing?"
  need_packages python3-venv ca-certificates curl iptables ${example:+busybox-static}
  check_python
  need_engine
  install_programs all
  setup_coordinator
  token=''
  enrolled || token=$(new_join_token)
  enrol "$(coordinator_url)" "$token"
  [ -z "$example" ] || run_example
  print_first_steps
}

print_first_steps() {
  url=$(coordinator_url)
  read_token="$([ -z "${SUDO_USER:-}" ] || echo 'sudo ')cat $token_file"
  authorization="-H \"Authorization: Bearer \$($read_token)\""
  say "
Argosy is up.
  URL      $url
  token    $token_file (root may read it)

To try it:
  curl -s $url/api/system.health
  curl -s $authorization '$url/api/cluster.nodes?clusterId=$(default_cluster)'"
  if [ -n "$example" ]; then
    say "  curl -s http://$(example_addresses "$example" | head -n 1)/"
  else
    say "  curl -s $authorization '$url/api/project.all?organizationId=$(default_organization)'"
  fi
  has_systemd || say "
systemd is not in charge here: run this again after a reboot. The logs are in $logs."
}

do_coordinator() {
  check_machine
  check_port
  need_packages python3-venv ca-certificates curl
  check_python
  install_programs coordinator
  setup_coordinator
  say "
The coordinator is up.
  URL      $(coordinator_url)
  token    $token_file (root may read it)
Nodes join with a token from POST /api/cluster.joinToken:
  install.sh agent --coordinator URL --join TOKEN"
}

do_agent() {
  [ -n "$coordinator" ] || die "agent needs --coordinator URL"
  check_machine
  enrolled || [ -n "$join" ] || die "this machine is not enrolled yet: agent needs --join TOKEN"
  need_packages python3-venv ca-certificates curl iptables
  check_python
  coordinator=${coordinator%/}
  case $coordinator in ws://* | wss://*) coordinator=http${coordinator#ws} ;; esac
  healthy "$coordinator" >/dev/null || die "no coordinator answers at $coordinator"
  need_engine
  install_programs agent
  enrol "$coordinator" "$join"
  say "This machine is a node of $coordinator."
}

do_status() {
  found='' failing=''
  for name in coordinator agent; do
    [ -e "$settings/$name.env" ] || continue
    found=yes
    if program_runs "$name"; then word=running; else word=stopped failing=yes; fi
    printf '%-12s %s\n' "$name" "$word"
  done
  if [ -z "$found" ]; then
    say "Argosy is not installed here"
    exit 4
  fi
  [ ! -e "$settings/coordinator.env" ] ||
    printf '%-12s %s\n' health "$(coordinator_health)"
  printf '%-12s %s\n' containers "$(count_containers)"
  [ -z "$failing" ] || exit 3
}

coordinator_health() {
  if [ ! -r "$settings/coordinator.env" ]; then
    echo "unknown: its settings are readable by root only"
  else
    healthy "$(coordinator_url)" 2>/dev/null || echo "no answer at $(coordinator_url)"
  fi
}

count_containers() {
  if engine_answers; then
    echo "$(argosy_containers | grep -c .) on this machine"
  else
    echo "unknown: no Docker Engine answers at $docker_host$([ "$(id -u)" -eq 0 ] || echo ' (to this user)')"
  fi
}

do_down() {
  check_root
  if [ -n "$purge" ] && [ -z "$yes" ]; then
    [ -t 0 ] || die "without a terminal to ask on, --purge needs --yes"
    confirm "Remove Argosy from this machine, with its containers and all its data?"
  fi
  [ -d "$settings" ] || say "Argosy is not installed here"
  for name in agent coordinator; do
    [ -e "$settings/$name.env" ] || continue
    step "Stopping argosy-$name"
    stop_service "$name"
  done
  if [ -n "$purge" ]; then
    purge_all
  elif [ -d "$settings" ]; then
    say "Containers keep running ($(count_containers)): \`up\` finds them again, \`down --purge\` removes them."
  fi
}

purge_all() {
  if engine_answers; then
    step "Removing Argosy's containers and volumes"
    for id in $(argosy_containers); do docker_api "/containers/$id?force=1&v=1" -X DELETE >/dev/null || :; done
    for name in $(argosy_volumes); do docker_api "/volumes/$name" -X DELETE >/dev/null || :; done
    docker_api "/images/$example_image" -X DELETE >/dev/null 2>&1 || :
  else
    say "No Docker Engine answers at $docker_host: containers of Argosy, if any, stay."
  fi
  step "Removing programs, settings and data"
  rm -f "$units/argosy-coordinator.service" "$units/argosy-agent.service"
  if has_systemd; then
    systemctl daemon-reload
    systemctl reset-failed argosy-coordinator argosy-agent 2>/dev/null || :
  fi
  rm -rf "$home" "$settings" "$state" "$run" "$logs"
  if id argosy >/dev/null 2>&1; then userdel argosy; fi
  say "Argosy is gone. System packages stay."
}

do_test() { # pytest arguments
  check_root
  check_system
  cd "$here"
  need_packages python3-venv ca-certificates git make shellcheck
  check_python
  # what the fixtures start, and say is missing
  # shellcheck disable=SC2046  # a list of words
  need_packages $(python3 -m tests.hosts.packages)
  step "Making the environment $here/.venv"
  .venv/bin/python -m pip --version >/dev/null 2>&1 || python3 -m venv --clear .venv
  pip_install .venv requirements/dev.lock --editable .
  step "Running the linters"
  make check
  step "Running the tests"
  if [ $# -eq 0 ]; then make test; else .venv/bin/python -m pytest "$@"; fi
}

# ---- arguments -------------------------------------------------------------------------------------------------------------

misused() {
  printf 'install.sh: %s; see install.sh %s--help\n' "$1" "${verb:+$verb }" >&2
  exit 2
}

value_of() { # OPTION [VALUE …]
  [ $# -ge 2 ] || misused "$1 needs a value"
  printf '%s\n' "$2"
}

parse_options() {
  yes='' purge='' example=yes bind='' public_url='' database_url=${ARGOSY_DATABASE_URL:-} coordinator='' join=${ARGOSY_JOIN:-} address='' labels=''
  while [ $# -gt 0 ]; do
    case "$verb $1" in
    *' --help' | *' -h') "help_$verb" && exit ;;
    'up --yes' | 'down --yes') yes=yes ;;
    'up --no-example') example='' ;;
    'down --purge') purge=yes ;;
    'up --bind' | 'coordinator --bind') bind=$(value_of "$@"); shift ;;
    'up --url' | 'coordinator --url') public_url=$(value_of "$@"); shift ;;
    'coordinator --database-url') database_url=$(value_of "$@"); shift ;;
    'agent --coordinator') coordinator=$(value_of "$@"); shift ;;
    'agent --join') join=$(value_of "$@"); shift ;;
    'agent --address') address=$(value_of "$@"); shift ;;
    'agent --label') labels=${labels:+$labels,}$(value_of "$@"); shift ;;
    *) misused "$verb knows no option '$1'" ;;
    esac
    shift
  done
  [ "$join" != - ] || read -r join
}

remember_settings() { # what an earlier run was told holds until told otherwise
  bind=${bind:-$(setting "$settings/coordinator.env" ARGOSY_BIND)}
  bind=${bind:-127.0.0.1:8420}
  docker_host=${ARGOSY_DOCKER_HOST:-$(setting "$settings/agent.env" ARGOSY_DOCKER_HOST)}
  docker_host=${docker_host:-unix:///var/run/docker.sock}
  case $docker_host in unix:///*) ;; *) die "ARGOSY_DOCKER_HOST must be unix:///PATH, not '$docker_host'" ;; esac
}

main() {
  verb=${1:-}
  case $verb in
  '' | -h | --help | help) verb='' && help_all && exit ;;
  up | status | down | coordinator | agent | test) shift ;;
  *) verb='' misused "there is no verb '$1'" ;;
  esac
  case "$verb ${1:-}" in
  'test --help' | 'test -h') help_test ;;
  'test '*) do_test "$@" ;;
  *)
    parse_options "$@"
    remember_settings
    "do_$verb"
    ;;
  esac
}

main "$@"
