# shellcheck shell=bash disable=SC2034
# What the raw-limit peers share. They are what a careful person would write
# in shell: one multiplexed ssh connection a host, hosts in parallel, no
# checkpoint, no resume. Run at the operator's place: lab run benches/peers/...

repo=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
lab_dir=$("$repo/fixtures/lab/lab" dir)

hosts=(patroni1 patroni2 patroni3)
balancers=(lb1 lb2)
declare -A address=(
  [patroni1]=198.18.0.11 [patroni2]=198.18.0.12 [patroni3]=198.18.0.13
  [lb1]=198.18.0.21 [lb2]=198.18.0.22
)
vip=198.18.0.100

variable() { sed -n "s/^$1: *//p" "$lab_dir/group_vars/promoters.yml"; }
scope=$(variable patroni_scope)
version=$(variable postgresql_version)
superuser_password=$(variable postgresql_superuser_password)
replication_password=$(variable postgresql_replication_password)
rewind_password=$(variable postgresql_rewind_password)
restapi_password=$(variable patroni_restapi_password)
data_dir=/var/lib/postgresql/$version/main
bin_dir=/usr/lib/postgresql/$version/bin

sockets=$(mktemp -d)
ssh_options=(
  -F none -i "$lab_dir/id_ed25519" -o IdentitiesOnly=yes -o BatchMode=yes
  -o UserKnownHostsFile="$lab_dir/known_hosts"
  -o ControlMaster=auto -o ControlPersist=60 -o ControlPath="$sockets/%h"
)
close_connections() {
  local host
  for host in "${hosts[@]}" "${balancers[@]}"; do
    ssh "${ssh_options[@]}" -O exit "root@${address[$host]}" 2>/dev/null || true
  done
  rm -rf "$sockets"
}
trap close_connections EXIT

# on HOST: runs the script on stdin there.
on() { ssh "${ssh_options[@]}" "root@${address[$1]}" sh -eu; }

# everywhere FUNCTION: runs `FUNCTION HOST` for all members at once.
everywhere() { at_once "$1" "${hosts[@]}"; }

# at_once FUNCTION HOST...: the same for these hosts.
at_once() {
  local function=$1 host pid failed=0
  local -a pids=()
  shift
  for host; do
    "$function" "$host" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
  ((failed == 0)) || { echo "$function failed" >&2; exit 1; }
}

started=${EPOCHREALTIME/./}
phase() {
  local now=${EPOCHREALTIME/./}
  printf '%6d ms  %s\n' $(((now - started) / 1000)) "$1"
}

# Prints the leader, if to it two running replicas stream. The leader alone can't
# tell: a pg_basebackup that clones a replica shows as "streaming" there too.
leader() {
  local host answer found="" replicas=0
  for host in "${hosts[@]}"; do
    answer=$(curl -s -k -m 1 "https://${address[$host]}:8008/patroni") || return 1
    [[ $answer =~ \"state\":\ \"running\" || $answer =~ \"state\":\ \"streaming\" ]] || return 1
    if [[ $answer =~ \"role\":\ \"replica\" ]]; then
      ((++replicas))
    elif [[ $answer =~ \"role\":\ \"(master|primary)\" &&
      $(grep -o '"state": "streaming"' <<<"$answer" | wc -l) == 2 ]]; then
      found=$host
    fi
  done
  [[ -n $found && $replicas == 2 ]] && echo "$found"
}

# Waits for a leader, then has it look at its members at once: it makes their
# replication slots in its loop, and replicas can't stream before. A PATCH that
# changes nothing wakes it, else up to loop_wait (10 s) pass.
wake_leader() {
  local host="" deadline=$((SECONDS + 60))
  until [[ -n $host ]]; do
    ((SECONDS < deadline)) || { echo "no leader after 60 s" >&2; exit 1; }
    sleep 0.1
    host=$(find_leader)
  done
  curl -s -k -u "patroni:$restapi_password" -o /dev/null -X PATCH -d '{"loop_wait": 10}' "https://${address[$host]}:8008/config"
  phase "leader: $host"
}

find_leader() {
  local host
  for host in "${hosts[@]}"; do
    [[ $(curl -s -k -m 1 -o /dev/null -w '%{http_code}' "https://${address[$host]}:8008/leader") != 200 ]] || echo "$host"
  done
}

wait_healthy() {
  local deadline=$((SECONDS + 120))
  until leader >/dev/null; do
    ((SECONDS < deadline)) || { echo "no healthy cluster after 120 s" >&2; exit 1; }
    sleep 0.1
  done
}
