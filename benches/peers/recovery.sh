#!/usr/bin/env bash
# The recovery from a system ID mismatch as the seed describes it, with the data
# set aside instead of removed: the cluster comes back empty. The raw limit that
# `flow run system-id-recovery --set mode=reset` is measured against.
set -euo pipefail
# shellcheck source=benches/peers/common.sh source-path=SCRIPTDIR/../..
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

stamp=$(date +%Y%m%d%H%M%S)

stop_replica() { [[ $1 == "$leader_host" ]] || stop_and_set_aside "$1"; }
stop_leader() { [[ -z $leader_host ]] || stop_and_set_aside "$leader_host"; }

stop_and_set_aside() {
  on "$1" <<SH
systemctl stop patroni.service
! pgrep -u postgres -x postgres >/dev/null || { echo "$1: PostgreSQL still runs" >&2; exit 1; }
[ ! -d $data_dir ] || mv -T $data_dir $data_dir.$stamp
SH
}

purge_keys() {
  on "${hosts[0]}" <<SH
export ETCDCTL_API=3 ETCDCTL_ENDPOINTS=https://127.0.0.1:2379 ETCDCTL_CACERT=/etc/etcd/certs/ca.crt
export ETCDCTL_CERT=/etc/etcd/certs/server.crt ETCDCTL_KEY=/etc/etcd/certs/server.key
etcdctl del --prefix /service/$scope/ >/dev/null
[ -z "\$(etcdctl get --prefix --keys-only /service/$scope/)" ]
SH
}

start_patroni() {
  on "$1" <<SH
systemctl reset-failed patroni.service
systemctl start patroni.service
SH
}

leader_host=$(find_leader)
everywhere stop_replica
stop_leader
phase "stopped, data set aside as $data_dir.$stamp"
purge_keys
phase "keys purged"
everywhere start_patroni
phase "Patroni started"
wake_leader
wait_healthy
phase "healthy: $(leader) leads"
