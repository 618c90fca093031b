#!/usr/bin/env bash
# From bare hosts to the first healthy cluster: etcd and Patroni on three hosts.
# The raw limit that `flow run deploy` is measured against.
set -euo pipefail
# shellcheck source=benches/peers/common.sh source-path=SCRIPTDIR/../..
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

# Without these, the packages would start an etcd of its own and a PostgreSQL
# cluster `main` on each host.
install_packages() {
  on "$1" <<'SH'
mkdir -p /etc/postgresql-common
echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
systemctl --quiet mask etcd.service patroni.service 2>/dev/null
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update >/dev/null
apt-get -qq install -y --no-install-recommends postgresql patroni python3-etcd etcd-server etcd-client >/tmp/install.log 2>&1 ||
  { cat /tmp/install.log >&2; exit 1; }
SH
}

initial_cluster() {
  local host list=()
  for host in "${hosts[@]}"; do list+=("$host=http://${address[$host]}:2380"); done
  (IFS=, && echo "${list[*]}")
}

start_etcd() {
  local ip=${address[$1]}
  on "$1" <<SH
cat >/etc/default/etcd <<'CONF'
ETCD_NAME=$1
ETCD_DATA_DIR=/var/lib/etcd/default
ETCD_LISTEN_PEER_URLS=http://$ip:2380
ETCD_LISTEN_CLIENT_URLS=http://$ip:2379,http://127.0.0.1:2379
ETCD_INITIAL_ADVERTISE_PEER_URLS=http://$ip:2380
ETCD_ADVERTISE_CLIENT_URLS=http://$ip:2379
ETCD_INITIAL_CLUSTER=$(initial_cluster)
ETCD_INITIAL_CLUSTER_STATE=new
ETCD_INITIAL_CLUSTER_TOKEN=$scope
CONF
systemctl --quiet unmask etcd.service
systemctl --quiet enable --now etcd.service
SH
}

start_patroni() {
  local ip=${address[$1]}
  on "$1" <<SH
umask 077
cat >/etc/patroni/config.yml <<'YAML'
scope: $scope
namespace: /service/
name: $1
restapi:
  listen: $ip:8008
  connect_address: $ip:8008
etcd3:
  hosts: [198.18.0.11:2379, 198.18.0.12:2379, 198.18.0.13:2379]
bootstrap:
  dcs:
    ttl: 30
    loop_wait: 10
    retry_timeout: 10
    maximum_lag_on_failover: 1048576
    postgresql:
      use_pg_rewind: true
      use_slots: true
  initdb:
    - encoding: UTF8
    - locale: C.UTF-8
    - data-checksums
postgresql:
  listen: $ip,127.0.0.1:5432
  connect_address: $ip:5432
  data_dir: $data_dir
  bin_dir: $bin_dir
  pgpass: /var/lib/postgresql/.pgpass_patroni
  authentication:
    superuser: {username: postgres, password: '$superuser_password'}
    replication: {username: replicator, password: '$replication_password'}
  parameters:
    unix_socket_directories: /var/run/postgresql
    wal_retrieve_retry_interval: 500ms
  pg_hba:
    - local all all peer
    - host all all 127.0.0.1/32 scram-sha-256
    - host all all 198.18.0.0/24 scram-sha-256
    - host replication replicator 127.0.0.1/32 scram-sha-256
    - host replication replicator 198.18.0.0/24 scram-sha-256
YAML
chown postgres: /etc/patroni/config.yml
install -d -o postgres -g postgres -m 755 $(dirname "$data_dir")
systemctl --quiet unmask patroni.service
systemctl --quiet enable --now patroni.service
SH
}

everywhere install_packages
phase "packages installed"
everywhere start_etcd
phase "etcd runs"
everywhere start_patroni
phase "Patroni started"
wake_leader
wait_healthy
phase "healthy: $(leader) leads"
