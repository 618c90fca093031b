#!/usr/bin/env bash
# From bare hosts to a cluster that speaks TLS and that clients reach: etcd and Patroni on three hosts, HAProxy and
# keepalived on two.
# The raw limit that `flow run deploy.toml` is measured against.
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

# A CA and two certificates for each host, as the operator's place makes them.
authority() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
    -subj "/CN=$scope CA" -keyout "$certs/ca.key" -out "$certs/ca.crt" 2>/dev/null
}

# PostgreSQL's is good for the addresses by which clients come, too.
certificate() {
  local host=$1 ip=${address[$1]} file=$certs/$1-$2 clients=""
  [[ $2 == etcd ]] || clients=",IP:${address[lb1]},IP:${address[lb2]},IP:$vip"
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$host" \
    -keyout "$file.key" -out "$file.csr" 2>/dev/null
  openssl x509 -req -in "$file.csr" -CA "$certs/ca.crt" -CAkey "$certs/ca.key" -CAserial "$file.srl" -CAcreateserial -days 365 \
    -extfile <(echo "subjectAltName=DNS:$host,DNS:localhost,IP:$ip,IP:127.0.0.1$clients
extendedKeyUsage=serverAuth,clientAuth") -out "$file.crt" 2>/dev/null
}

put_certificates() {
  certificate "$1" etcd
  certificate "$1" postgres
  on "$1" <<SH
put() { cat >"\$1/\$2"; chown "\$3:" "\$1/\$2"; chmod "\$4" "\$1/\$2"; }
umask 077
install -d -m 755 /etc/etcd /etc/etcd/certs /etc/postgresql/certs
put /etc/etcd/certs ca.crt etcd 644 <<'PEM'
$(<"$certs/ca.crt")
PEM
put /etc/etcd/certs server.crt etcd 644 <<'PEM'
$(<"$certs/$1-etcd.crt")
PEM
put /etc/etcd/certs server.key etcd 600 <<'PEM'
$(<"$certs/$1-etcd.key")
PEM
put /etc/postgresql/certs root.crt postgres 644 <<'PEM'
$(<"$certs/ca.crt")
PEM
put /etc/postgresql/certs server.crt postgres 644 <<'PEM'
$(<"$certs/$1-postgres.crt")
PEM
put /etc/postgresql/certs server.key postgres 600 <<'PEM'
$(<"$certs/$1-postgres.key")
PEM
SH
}

initial_cluster() {
  local host list=()
  for host in "${hosts[@]}"; do list+=("$host=https://${address[$host]}:2380"); done
  (IFS=, && echo "${list[*]}")
}

start_etcd() {
  local ip=${address[$1]}
  on "$1" <<SH
cat >/etc/default/etcd <<'CONF'
ETCD_NAME=$1
ETCD_DATA_DIR=/var/lib/etcd/default
ETCD_LISTEN_PEER_URLS=https://$ip:2380
ETCD_LISTEN_CLIENT_URLS=https://$ip:2379,https://127.0.0.1:2379
ETCD_INITIAL_ADVERTISE_PEER_URLS=https://$ip:2380
ETCD_ADVERTISE_CLIENT_URLS=https://$ip:2379
ETCD_INITIAL_CLUSTER=$(initial_cluster)
ETCD_INITIAL_CLUSTER_STATE=new
ETCD_INITIAL_CLUSTER_TOKEN=$scope
ETCD_CERT_FILE=/etc/etcd/certs/server.crt
ETCD_KEY_FILE=/etc/etcd/certs/server.key
ETCD_TRUSTED_CA_FILE=/etc/etcd/certs/ca.crt
ETCD_CLIENT_CERT_AUTH=true
ETCD_PEER_CERT_FILE=/etc/etcd/certs/server.crt
ETCD_PEER_KEY_FILE=/etc/etcd/certs/server.key
ETCD_PEER_TRUSTED_CA_FILE=/etc/etcd/certs/ca.crt
ETCD_PEER_CLIENT_CERT_AUTH=true
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
  certfile: /etc/postgresql/certs/server.crt
  keyfile: /etc/postgresql/certs/server.key
  cafile: /etc/postgresql/certs/root.crt
  authentication: {username: patroni, password: '$restapi_password'}
etcd3:
  protocol: https
  cacert: /etc/postgresql/certs/root.crt
  cert: /etc/postgresql/certs/server.crt
  key: /etc/postgresql/certs/server.key
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
    rewind: {username: rewind_user, password: '$rewind_password'}
  parameters:
    unix_socket_directories: /var/run/postgresql
    wal_retrieve_retry_interval: 500ms
    ssl: "on"
    ssl_cert_file: /etc/postgresql/certs/server.crt
    ssl_key_file: /etc/postgresql/certs/server.key
    ssl_ca_file: /etc/postgresql/certs/root.crt
  pg_hba:
    - local all all peer
    - hostssl all all 127.0.0.1/32 scram-sha-256
    - hostssl all all 198.18.0.0/24 scram-sha-256
    - hostssl replication replicator 127.0.0.1/32 scram-sha-256
    - hostssl replication replicator 198.18.0.0/24 scram-sha-256
YAML
chown postgres: /etc/patroni/config.yml
install -d -o postgres -g postgres -m 755 $(dirname "$data_dir")
systemctl --quiet unmask patroni.service
systemctl --quiet enable --now patroni.service
SH
}

# HAProxy waits for members to come up, and keepalived for HAProxy: both run long before there is a leader.
balancer() {
  on "$1" <<SH
systemctl --quiet mask haproxy.service keepalived.service 2>/dev/null
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update >/dev/null
apt-get -qq install -y --no-install-recommends haproxy keepalived >/tmp/install.log 2>&1 ||
  { cat /tmp/install.log >&2; exit 1; }
cat >/etc/haproxy/root.crt <<'PEM'
$(<"$certs/ca.crt")
PEM
cat >/etc/haproxy/haproxy.cfg <<'CONF'
global
    log /dev/log local0
    user haproxy
    group haproxy
    maxconn 2000
    stats socket /run/haproxy/admin.sock mode 660 level admin
defaults
    log global
    mode tcp
    option tcplog
    option dontlognull
    retries 2
    timeout connect 4s
    timeout check 5s
    timeout client 30m
    timeout server 30m
listen stats
    bind *:7000
    mode http
    stats enable
    stats uri /
$(listen primary 5000)
$(listen replica 5001)
CONF
haproxy -c -q -f /etc/haproxy/haproxy.cfg
cat >/etc/keepalived/keepalived.conf <<'CONF'
global_defs {
    router_id $1
    enable_script_security
    script_user root
}
vrrp_script haproxy {
    script "/usr/bin/systemctl is-active --quiet haproxy.service"
    interval 1
    timeout 5
    fall 2
    rise 2
}
vrrp_instance $scope {
    state BACKUP
    nopreempt
    interface host0
    virtual_router_id 51
    priority $([[ $1 == lb1 ]] && echo 199 || echo 198)
    advert_int 1
    unicast_src_ip ${address[$1]}
    unicast_peer {
        $([[ $1 == lb1 ]] && echo "${address[lb2]}" || echo "${address[lb1]}")
    }
    virtual_ipaddress {
        $vip/24 dev host0
    }
    track_script {
        haproxy
    }
}
CONF
keepalived -t -f /etc/keepalived/keepalived.conf >/dev/null 2>&1
systemctl --quiet unmask haproxy.service keepalived.service
systemctl --quiet enable --now haproxy.service keepalived.service
SH
}

listen() {
  local host
  cat <<CONF
listen $1
    bind *:$2
    option httpchk GET /$1
    http-check expect status 200
    default-server inter 2s fastinter 1s fall 3 rise 2 on-marked-down shutdown-sessions
CONF
  for host in "${hosts[@]}"; do
    echo "    server $host ${address[$host]}:5432 check port 8008 check-ssl verify required ca-file /etc/haproxy/root.crt verifyhost $host"
  done
}

# Clients reach the leader and a replica by both balancers, and the leader by the virtual address. There is no psql
# on the balancers: a member asks.
wait_served() {
  local deadline=$((SECONDS + 60))
  until on "${hosts[0]}" 2>/dev/null <<SH
export PGPASSWORD='$superuser_password' PGCONNECT_TIMEOUT=2
leads() { psql -XAtc 'select pg_is_in_recovery()' "host=\$1 port=\$2 user=postgres dbname=postgres sslmode=verify-full sslrootcert=/etc/postgresql/certs/root.crt"; }
for place in ${address[lb1]} ${address[lb2]} $vip; do [ "\$(leads \$place 5000)" = f ]; done
for place in ${address[lb1]} ${address[lb2]}; do [ "\$(leads \$place 5001)" = t ]; done
SH
  do
    ((SECONDS < deadline)) || { echo "clients aren't served after 60 s" >&2; exit 1; }
    sleep 0.1
  done
}

certs=$(mktemp -d)
trap 'close_connections; rm -rf "$certs"' EXIT
authority
at_once balancer "${balancers[@]}" &
balancers_up=$!
everywhere install_packages
phase "packages installed"
everywhere put_certificates
phase "certificates"
everywhere start_etcd
phase "etcd runs"
everywhere start_patroni
phase "Patroni started"
wake_leader
wait_healthy
phase "healthy: $(leader) leads"
wait "$balancers_up"
phase "balancers run"
wait_served
phase "clients are served"
