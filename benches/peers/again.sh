#!/usr/bin/env bash
# The checks of `flow run deploy.toml` on a cluster that is there already, and its proof: a script a host, all hosts at
# once, one round trip. FOLDER holds copies of the hosts' configuration files (`again.yml --tags prepare`).
set -euo pipefail
# shellcheck source=benches/peers/common.sh source-path=SCRIPTDIR/../..
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
files=${1:?usage: again.sh FOLDER}

# sums HOST: what `sha256sum -c` takes.
sums() { (cd "$files/$1" && find . -type f -printf '%P\0' | xargs -0 sha256sum | sed 's|  |  /|'); }

runs() { echo "[ \"\$(systemctl is-active $1)\$(systemctl is-enabled $1)\" = activeenabled ]"; }

member() {
  on "$1" <<SH
date +%s >/dev/null
ss -Hltnp >/dev/null
[ "\$(cat /etc/postgresql-common/createcluster.conf)" = "create_main_cluster = false" ]
dpkg-query -W etcd-server etcd-client postgresql-$version patroni python3-etcd >/dev/null
[ "\$(stat -c %U:%a /etc/postgresql/certs /etc/etcd/certs /var/lib/postgresql/$version | tr '\n' ' ')" = "postgres:755 etcd:755 postgres:755 " ]
for c in "/etc/postgresql/certs root.crt" "/etc/etcd/certs ca.crt"; do
  set -- \$c
  openssl verify -CAfile "\$1/\$2" -verify_ip ${address[$1]} "\$1/server.crt" >/dev/null
  openssl x509 -in "\$1/server.crt" -noout -checkend 1209600 >/dev/null
  [ "\$(openssl x509 -in "\$1/server.crt" -noout -pubkey)" = "\$(openssl pkey -in "\$1/server.key" -pubout)" ]
done
sha256sum --quiet -c <<'SUMS'
$(sums "$1")
SUMS
$(runs etcd.service)
$(runs patroni.service)
export ETCDCTL_API=3 ETCDCTL_ENDPOINTS=https://127.0.0.1:2379 ETCDCTL_CACERT=/etc/etcd/certs/ca.crt
export ETCDCTL_CERT=/etc/etcd/certs/server.crt ETCDCTL_KEY=/etc/etcd/certs/server.key
etcdctl endpoint health >/dev/null 2>&1
[ "\$(etcdctl member list | wc -l)" = 3 ]
$bin_dir/pg_controldata $data_dir | grep -q "system identifier.* \$(etcdctl get --print-value-only /service/$scope/initialize)\$"
ask() { psql -XAtc "\$1" "host=\$2 port=\$3 user=\$4 dbname=postgres sslmode=verify-full sslrootcert=/etc/postgresql/certs/root.crt"; }
PGPASSWORD='$replication_password' ask 'select 1' ${address[$1]} 5432 replicator >/dev/null
export PGPASSWORD='$superuser_password'
ask 'select 1' ${address[$1]} 5432 postgres >/dev/null
$([[ $1 != "${hosts[0]}" ]] || served)
SH
}

# There is no psql on the balancers: the first member asks their ports.
served() {
  local place
  echo "[ \"\$(ask \"select rolcanlogin from pg_roles where rolname = 'rewind_user'\" ${address[${hosts[0]}]} 5432 postgres)\" = t ]"
  for place in "${address[lb1]}" "${address[lb2]}" "$vip"; do
    echo "[ \"\$(ask 'select pg_is_in_recovery()' $place 5000 postgres)\" = f ]"
  done
  for place in "${address[lb1]}" "${address[lb2]}"; do
    echo "[ \"\$(ask 'select pg_is_in_recovery()' $place 5001 postgres)\" = t ]"
  done
}

balancer() {
  on "$1" <<SH
ss -Hltnp >/dev/null
dpkg-query -W haproxy keepalived >/dev/null
sha256sum --quiet -c <<'SUMS'
$(sums "$1")
SUMS
$(runs haproxy.service)
$(runs keepalived.service)
SH
}

check() { if [[ $1 == lb* ]]; then balancer "$1"; else member "$1"; fi; }

at_once check "${hosts[@]}" "${balancers[@]}"
leader >/dev/null
phase "as it should be: $(leader) leads"
