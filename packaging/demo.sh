#!/bin/bash
# demo.sh: loses a real database and gets it back, on this machine, in a temporary folder. `make demo` builds and runs it.
#
# A MariaDB server of its own is written to while it is backed up into two providers; then it is destroyed, and one restore
# command brings it back from a provider and the recovery kit alone. Then the verifier proves the backups in scratch servers and
# signs a report. All on one machine, which a real installation never is: there the kit is made and kept elsewhere, the
# providers are two accounts at two companies, and the verifier runs on a host of its own.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
holdfast=${CARGO_TARGET_DIR:-$project/target}/debug/holdfast
holdfast_verifier=$holdfast-verifier
mariadb=${HOLDFAST_MARIADB_DIR:?run it by: make demo}
folder=$(mktemp -d /tmp/hf-demo-XXXXXX)
source_server=$folder/source
restored_server=$folder/restored
writer=
agent_process=
moment=
summary=()

# Each part of the story, timed: step TEXT COMMAND...
step() {
    local text=$1 started=${EPOCHREALTIME/[^0-9]/} tenths
    shift
    printf '\n== %s\n' "$text"
    "$@"
    tenths=$(((${EPOCHREALTIME/[^0-9]/} - started) / 100000))
    summary+=("$(printf '%5d.%d s  %s' $((tenths / 10)) $((tenths % 10)) "$text")")
}

# --- a MariaDB server on a unix socket: nothing of the system's is used, and no port opened
start_server() { # FOLDER
    local options=(--no-defaults "--user=$(id -un)" "--basedir=$mariadb/usr" "--datadir=$1/data" "--plugin-dir=$mariadb/usr/lib/mysql/plugin" "--tmpdir=$1/tmp")
    mkdir -p "$1/tmp"
    [ -d "$1/data" ] || "$mariadb/usr/bin/mariadb-install-db" "${options[@]}" --auth-root-authentication-method=normal \
        --skip-test-db --skip-name-resolve --force >"$1/init.log" 2>&1
    "$mariadb/usr/sbin/mariadbd" "${options[@]}" --socket="$1/server.sock" --pid-file="$1/pid" --skip-networking \
        --server-id=1 --log-bin=binlog --binlog-format=ROW --gtid-strict-mode=ON --sync-binlog=1 --log-slave-updates=ON >"$1/log" 2>&1 </dev/null &
    disown # its end is ours to tell, not the shell's
    for _ in $(seq 300); do
        ! sql "$1" "SELECT 1" >/dev/null 2>&1 || return 0
        sleep 0.1
    done
    cat "$1/log" >&2
    return 1
}

sql() { # FOLDER STATEMENTS
    "$mariadb/usr/bin/mariadb" --no-defaults --user=root --socket="$1/server.sock" --batch --skip-column-names -e "$2"
}

end_server() { # FOLDER SIGNAL: by the process id that the server wrote itself
    local id
    id=$(cat "$1/pid" 2>/dev/null) || return 0
    kill "-$2" "$id" 2>/dev/null || return 0
    while kill -0 "$id" 2>/dev/null; do sleep 0.1; done
}

stop_writer() {
    [ -n "$writer" ] || return 0
    : >"$folder/stop-writing"
    wait "$writer" || true
    writer=
}

clean_up() {
    local status=$?
    [ -z "$agent_process" ] || kill -TERM "$agent_process" 2>/dev/null || true
    stop_writer
    end_server "$source_server" KILL
    end_server "$restored_server" KILL
    if [ $status = 0 ]; then
        rm -rf "$source_server" "$restored_server"
    else
        echo "demo: FAILED; what there is to look at is in $folder" >&2
    fi
}
trap clean_up EXIT

orders() { # FOLDER
    sql "$1" "SELECT CONCAT(COUNT(*), ' orders of ', COUNT(DISTINCT customer), ' customers, ', SUM(cents), ' cents') FROM shop.orders"
}

# --- the parts of the story
sample_data() {
    start_server "$source_server"
    sql "$source_server" "CREATE DATABASE shop; USE shop;
        CREATE TABLE orders (id BIGINT AUTO_INCREMENT PRIMARY KEY, customer VARCHAR(60) NOT NULL, cents BIGINT NOT NULL,
            made TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6), KEY (customer));
        CREATE VIEW revenue AS SELECT customer, SUM(cents) AS cents FROM orders GROUP BY customer;
        INSERT INTO orders (customer, cents) SELECT CONCAT('customer ', seq % 977), seq * 37 % 100000 FROM seq_1_to_200000;"
    orders "$source_server"
}

new_keys() {
    "$holdfast" keys new --out "$folder/kit"
}

# The host makes a signing key that never leaves it; whoever has the kit certifies its public half.
set_up_agent() {
    local request
    cat >"$folder/holdfast.toml" <<END
cluster = "shop"
host = "database-1"
state_dir = "state"

[repository]
descriptor = "repository.public"

[source]
socket = "$source_server/server.sock"
user = "root"

[[provider]]
name = "first"
kind = "file"
path = "$folder/first"

[[provider]]
name = "second"
kind = "file"
path = "$folder/second"
END
    mkdir "$folder/first" "$folder/second"
    cp "$folder/kit/repository.public" "$folder/"
    agent init 2>"$folder/init.txt" || true # says what is to be certified
    request=$(sed -n 's/^.*keys certify .* //p' "$folder/init.txt")
    "$holdfast" keys certify --kit "$folder/kit" --name database-1 --out "$folder/state/certificate" "$request"
    agent init
    agent doctor
}

# On another host: it holds the identity that opens backups, which no database host has.
set_up_verifier() {
    local request
    cat >"$folder/verifier.toml" <<END
name = "verifier-1"
state_dir = "verifier"

[repository]
descriptor = "repository.public"
identity = "kit/verifier.identity"

[scratch]
mariadb_prefix = "$mariadb"

[[drill]]
cluster = "shop"
schedule = "0 4 * * *"

[[provider]]
name = "first"
kind = "file"
path = "$folder/first"

[[provider]]
name = "second"
kind = "file"
path = "$folder/second"
END
    verifier init 2>"$folder/init.txt" || true # says what is to be certified
    request=$(sed -n 's/^.*keys certify .* //p' "$folder/init.txt")
    "$holdfast" keys certify --kit "$folder/kit" --name verifier-1 --role verifier --out "$folder/verifier/certificate" "$request"
    verifier init
}

verifier() {
    "$holdfast_verifier" --config "$folder/verifier.toml" "$@"
}

agent() {
    "$holdfast" --config "$folder/holdfast.toml" "$@"
}

# Shops do not stop for backups: orders come in until told to stop.
write_orders() {
    while [ ! -e "$folder/stop-writing" ]; do
        echo "INSERT INTO shop.orders (customer, cents) VALUES ('a customer during the backup', 4711);"
        sleep 0.01
    done | "$mariadb/usr/bin/mariadb" --no-defaults --user=root --socket="$source_server/server.sock"
}

# The service takes a first backup by itself and archives the binlogs from then on.
protect() {
    write_orders &
    writer=$!
    "$holdfast" --config "$folder/holdfast.toml" run >"$folder/agent.log" 2>&1 &
    agent_process=$!
    for _ in $(seq 300); do
        if agent list | grep -q 'in first, second'; then break; fi
        sleep 0.2
    done
    sleep 3
    agent backup # another one, so that the first and the binlogs can be held against it
    agent list
    sleep 3
    agent status
}

mistake() {
    stop_writer
    # MariaDB's binlog knows seconds only, so the moment to go back to gets one to itself.
    sleep 1.1
    moment=$(date -u +%Y-%m-%dT%H:%M:%SZ)
    echo "before the mistake, at about $moment: $(orders "$source_server")"
    sleep 1.1
    sql "$source_server" "DROP TABLE shop.orders"
    echo "DROP TABLE shop.orders"
    sleep 3
    agent status
}

destroy() {
    kill -TERM "$agent_process" && wait "$agent_process" || true
    agent_process=
    end_server "$source_server" KILL
    rm -rf "$source_server/data" "$folder/first"
    echo "the server is killed and its data deleted, and so is everything in the first provider"
}

# Nothing of the lost host is used: neither its configuration nor its state.
restore() {
    "$holdfast" restore --provider "file:$folder/second" --kit "$folder/kit" --to-time "$moment" --scratch "$restored_server" --server-prefix "$mariadb"
}

# Not the restored server is looked at, but whether the backups can be restored: in new servers, which are wiped afterwards.
prove() {
    mkdir "$folder/first" # a new, empty account in place of the lost one, for the report; the proof is of the second alone
    verifier init         # nothing is written to a provider before it holds the repository
    verifier drill --provider second
}

# An auditor needs the report and the root's public key, and no access to anything.
audit() {
    verifier report list
    verifier report show --out "$folder/report.json" >/dev/null
    "$holdfast_verifier" report verify "$folder/report.json" --descriptor "$folder/repository.public"
}

compare() {
    orders "$restored_server"
    sql "$restored_server" "SELECT CONCAT('best customer: ', customer, ', ', cents, ' cents') FROM shop.revenue ORDER BY cents DESC, customer LIMIT 1"
}

step "a shop with 200,000 orders" sample_data
step "a recovery kit: it restores everything, and belongs into a safe" new_keys
step "the agent is set up, with public keys only, and looks whether all is well" set_up_agent
step "a verifier is set up, which on a real installation is another host" set_up_verifier
step "the agent protects the shop while orders come in: a backup, and every transaction after it, in two providers" protect
step "somebody drops a table" mistake
step "and then the server is lost, and a provider with it" destroy
step "the restore to just before the mistake, from the second provider and the kit alone" restore
step "what came back" compare
step "the verifier proves the backups: it restores one to a random moment, and the one before it to where this one begins" prove
step "the report is checked as an auditor would: offline, by the root's public key" audit

printf '\nWhat happened\n'
printf '%s\n' "${summary[@]}"
echo "The signed report: $folder/report.json"
echo "Kept to look at: $folder"
