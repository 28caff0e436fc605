#!/usr/bin/env python3
"""Runs the torture sets of tests/torture through Holdfast and what it competes with, and writes docs/fidelity.md. `make fidelity` starts it.

    fidelity.py [--only SERVER,...] [--out FILE]

SERVER is mariadb, mariadb118, mysql. A source is filled with the sets; each contender dumps it and loads a fresh server; what the two
servers hold is compared by questions of this script's own, put through the servers' own client, so that no contender is believed. Each
question is about one object: its rows (text in hex, FLOAT as DOUBLE, members by number, JSON with the size of its binary form), its
definition, its history, its grants. HOLDFAST_MYDUMPER is the folder with `mydumper` and `myloader`, where they are not the ones that the
set-up installs. Servers listen on sockets only and are ended by process id.
"""

import argparse
import contextlib
import datetime
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(PROJECT, "tests/bench"))
import bench as measuring  # noqa: E402  (servers and processes are those of the benchmark)
from bench import Failed, Kind, Server, run, say  # noqa: E402

SYSTEM = "('information_schema', 'mysql', 'performance_schema', 'sys')"
OURS = "('root', 'mariadb.sys', 'mysql.sys', 'mysql.session', 'mysql.infoschema', 'PUBLIC')"
KINDS = ["schemas", "rows", "history", "tables", "sequences", "views", "triggers", "routines", "events", "accounts"]
SETS = {
    "mysql": ["types", "objects", "mysql-more", "letters", "common", "mysql", "broken", "accounts-mysql"],
    "mariadb": ["types", "objects", "mariadb-more", "letters", "common", "mariadb", "broken", "accounts-mariadb"],
    "mariadb118": ["types", "objects", "mariadb-more", "mariadb-11.8", "letters", "common", "mariadb", "broken", "accounts-mariadb"],
}


def quoted(name):
    return "`" + name.replace("`", "``") + "`"


def literal(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def unescaped(field):
    return re.sub(r"\\(.)", lambda found: {"n": "\n", "t": "\t", "0": "\0"}.get(found.group(1), found.group(1)), field)


def ask(server, text, binary=False):
    """The rows of a query. The client escapes tabs and newlines within fields; bytes that are no text are kept as they are."""
    options = ["--batch", "--skip-column-names", "--default-character-set=" + ("binary" if binary else "utf8mb4"), "--max-allowed-packet=1G"]
    done = subprocess.run(server.kind.client(server.socket, *options), input=text.encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise Failed(done.stderr.decode(errors="replace").strip()[-300:])
    lines = done.stdout.decode(errors="surrogateescape").split("\n")[:-1]
    return [[unescaped(field) for field in line.split("\t")] for line in lines]


# --- the oracle
def exact(kind, name, data_type):
    column = quoted(name)
    if data_type in ("float", "double"):
        return "CAST(%s AS DOUBLE)" % column
    if data_type in ("enum", "set"):
        return "%s + 0" % column
    if data_type in ("bit", "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geomcollection", "geometrycollection", "vector"):
        return "HEX(%s)" % column
    if data_type == "json" and not kind.mariadb:
        return "HEX(CAST(%s AS CHAR)), JSON_STORAGE_SIZE(%s) - JSON_STORAGE_FREE(%s)" % (column, column, column)
    if data_type in ("inet4", "inet6", "uuid"):
        return "CAST(%s AS CHAR)" % column
    if data_type in ("char", "varchar", "tinytext", "text", "mediumtext", "longtext", "binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"):
        # The whole of a large value as its hash: what differs is seen all the same.
        return "LENGTH(%s), IF(LENGTH(%s) > 1000, %s, HEX(%s))" % (column, column, hashed(kind, column), column)
    return "CAST(%s AS CHAR)" % column


def hashed(kind, column):
    return "SHA2(CAST(%s AS BINARY), 256)" % column


def questions(server):
    """(kind, object, query) of everything in a server."""
    found = []
    maria = server.kind.mariadb
    sequences = {(row[0], row[1]) for row in ask(server, "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE = 'SEQUENCE'")}
    for (schema,) in ask(server, "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME NOT IN %s" % SYSTEM):
        found.append(("schemas", quoted(schema), "SHOW CREATE DATABASE %s" % quoted(schema)))
    columns = {}
    text = "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, DATA_TYPE FROM information_schema.COLUMNS WHERE TABLE_SCHEMA NOT IN %s ORDER BY ORDINAL_POSITION" % SYSTEM
    for schema, table, column, data_type in ask(server, "SET SESSION show_gipk_in_create_table_and_information_schema = ON;" * (not maria) + text):
        columns.setdefault((schema, table), []).append(exact(server.kind, column, data_type))
    text = "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE FROM information_schema.TABLES WHERE TABLE_SCHEMA NOT IN %s AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED')" % SYSTEM
    for schema, table, table_type in ask(server, text):
        name = quoted(schema) + "." + quoted(table)
        select = "SELECT %s FROM %s" % (", ".join(columns.get((schema, table), ["1"])), name)
        found.append(("rows", name, select))
        found.append(("tables", name, "SHOW CREATE TABLE " + name))
        if table_type == "SYSTEM VERSIONED":
            found.append(("history", name, select + " FOR SYSTEM_TIME ALL"))
    for schema, table in sequences:
        name = quoted(schema) + "." + quoted(table)
        found.append(("sequences", name, "SHOW CREATE SEQUENCE %s; SELECT * FROM %s" % (name, name)))
    lists = [
        ("views", "VIEW", "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.VIEWS WHERE TABLE_SCHEMA NOT IN %s"),
        ("triggers", "TRIGGER", "SELECT TRIGGER_SCHEMA, TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA NOT IN %s"),
        ("routines", None, "SELECT ROUTINE_SCHEMA, ROUTINE_NAME, ROUTINE_TYPE FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA NOT IN %s"),
        ("events", "EVENT", "SELECT EVENT_SCHEMA, EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA NOT IN %s"),
    ]
    for kind, word, text in lists:
        for row in ask(server, text % SYSTEM):
            name = quoted(row[0]) + "." + quoted(row[1])
            found.append((kind, name, "SHOW CREATE %s %s" % (word or row[2], name)))
    role = "is_role = 'Y'" if maria else "0"
    for user, host, is_role in ask(server, "SELECT User, Host, %s FROM mysql.user WHERE User NOT IN %s" % (role, OURS)):
        name = quoted(user) if is_role == "1" else literal(user) + "@" + literal(host)
        create = "" if is_role == "1" else "SHOW CREATE USER %s; " % name
        found.append(("accounts", name, create + "SHOW GRANTS FOR " + name))
    return found


def answer(server, query):
    """Sorted, since rows have no order; triggers say when they were made."""
    before = "SET time_zone = '+00:00';"
    if not server.kind.mariadb:
        before += "SET SESSION show_gipk_in_create_table_and_information_schema = ON, print_identified_with_as_hex = ON;"
    with contextlib.suppress(Failed):
        rows = ask(server, before + query, binary=query.startswith("SHOW CREATE"))
        if query.startswith("SHOW CREATE TRIGGER"):
            rows = [row[:-1] for row in rows]
        if query.startswith("SHOW CREATE TABLE"):
            # MySQL prints a column's character set where it was written, though its collation says it already.
            rows = [[re.sub(r" CHARACTER SET \w+(?= COLLATE)", "", field) for field in row] for row in rows]
        return sorted(rows)
    return "cannot be read"


def snapshot(server):
    return {(kind, name): answer(server, query) for kind, name, query in questions(server)}


def compare(wanted, found):
    """By kind: how many objects there were, and those that are not what they were."""
    result = {kind: (0, []) for kind in KINDS}
    for (kind, name), value in sorted(wanted.items(), key=lambda item: item[0]):
        count, lost = result[kind]
        if found.get((kind, name)) != value:
            lost.append(name + (": missing" if (kind, name) not in found else ""))
        result[kind] = (count + 1, lost)
    return result


# --- contenders: each fills a fresh server and returns it, with what it said
def fresh(kind, name):
    return Server.start(kind, name, options(kind))


def options(kind):
    common = "--server-id=2 --log-bin=binlog --event-scheduler=OFF --skip-networking --local-infile=ON --max-allowed-packet=1G --log-bin-trust-function-creators=ON"
    if kind.mariadb:
        return (common + " --plugin-load-add=ha_archive --plugin-load-add=ha_blackhole --plugin-load-add=auth_ed25519").split()
    return (common + " --mysqlx=OFF --gtid-mode=ON --enforce-gtid-consistency=ON --partial-revokes=ON").split()


def attempt(command, **more):
    """What it printed to standard error, and its status."""
    done = subprocess.run([str(word) for word in command], stderr=subprocess.PIPE, check=False, **more)
    return done.returncode, done.stderr.decode(errors="replace").strip()[-400:]


def by_holdfast(source, name):
    folder = os.path.join(measuring.bench.folder, name)
    os.makedirs(folder)
    holdfast = measuring.bench.holdfast
    at = lambda leaf: os.path.join(folder, leaf)  # noqa: E731
    run([holdfast, "keys", "new", "--out", at("kit")])
    with open(at("holdfast.toml"), "w") as file:
        file.write('cluster = "torture"\nhost = "db1"\nstate_dir = "state"\n[repository]\ndescriptor = "kit/repository.public"\n')
        file.write('[source]\nsocket = "%s"\nuser = "root"\n' % source.socket)
        for provider in "ab":
            os.mkdir(at(provider))
            file.write('[[provider]]\nname = "%s"\nkind = "file"\npath = "%s"\n' % (provider, provider))
    config = [holdfast, "--config", at("holdfast.toml")]
    told = subprocess.run(config + ["init", "--json"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout  # refuses, and gives the request
    request = re.search(r"holdfast-writer:\S+", told.replace("\\n", " ")).group(0).strip('"')
    run([holdfast, "keys", "certify", "--kit", at("kit"), "--name", "db1", "--out", at("state/certificate"), request])
    run(config + ["init"], cwd=folder)
    run(config + ["backup"], cwd=folder)
    target = at("restored")
    status, said = attempt([holdfast, "restore", "--kit", at("kit"), "--provider", "file:" + at("a"), "--scratch", target, "--server-prefix", source.kind.prefix, "--backup-only"], stdout=subprocess.DEVNULL)
    server = Server(source.kind, target)
    return server, status, said


def by_dump(source, name):
    kind = source.kind
    target = fresh(kind, name)
    dump = [kind.program("mariadb-dump" if kind.mariadb else "mysqldump"), "--no-defaults", "--user=root", "--socket=" + source.socket]
    dump += "--all-databases --routines --triggers --events --single-transaction --hex-blob --force --max-allowed-packet=1G".split()
    dump += ["--dump-history"] if kind.mariadb else ["--set-gtid-purged=OFF", "--column-statistics"]
    path = os.path.join(target.folder, "dump.sql")
    with open(path, "wb") as file:
        status, said = attempt(dump, stdout=file)
    with open(path, "rb") as file:
        loaded, told = attempt(kind.client(target.socket, "--force", "--binary-mode", "--max-allowed-packet=1G"), stdin=file, stdout=subprocess.DEVNULL)
    with contextlib.suppress(Failed):
        target.sql("FLUSH PRIVILEGES")
    return target, status or loaded, (said + " " + told).strip()


def by_mydumper(source, name):
    tool = lambda program: os.path.join(os.environ["HOLDFAST_MYDUMPER"], program)  # noqa: E731
    target = fresh(source.kind, name)
    version = mydumper_version()
    defaults = os.path.join(target.folder, "defaults")
    with open(defaults, "w") as file:
        file.write("" if source.kind.mariadb else "[mydumper_session_variables]\nexplain_format = TRADITIONAL\n")
    more = [] if version.startswith("0.") else ["--trx-tables=0", "--defaults-file=" + defaults]
    status, said = 0, ""
    # The whole instance at once gives nothing: one error ends it. So each database by itself.
    for number, (schema,) in enumerate(ask(source, "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME NOT IN %s" % SYSTEM)):
        out = os.path.join(target.folder, "dump%d" % number)
        dump = [tool("mydumper"), "--user=root", "--socket=" + source.socket, "--outputdir=" + out, "--database=" + schema, "--triggers", "--routines", "--events"]
        one, told = attempt(dump + more, stdout=subprocess.DEVNULL)
        if os.path.isdir(out):
            loaded, more_told = attempt([tool("myloader"), "--user=root", "--socket=" + target.socket, "--directory=" + out], stdout=subprocess.DEVNULL)
            one, told = one or loaded, told + " " + more_told
        status, said = status or one, told.strip() if one else said
    return target, status, said


def mydumper_version():
    program = os.path.join(os.environ["HOLDFAST_MYDUMPER"], "mydumper")
    said = subprocess.run([program, "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout
    return re.search(r"mydumper v?([\d.]+\d)", said).group(1)


def contenders(kind):
    dump = "mariadb-dump" if kind.mariadb else "mysqldump"
    return [("Holdfast", by_holdfast), (dump, by_dump), ("mydumper " + mydumper_version(), by_mydumper)]


# --- the page
def page(results):
    lines = ["# Fidelity: what each tool keeps", ""]
    lines += ["Written by `make fidelity` on %s, from `tests/torture`, the most awkward objects and values that we could think of; the method is" % datetime.date.today()]
    lines += ["told at the top of `tests/fidelity/fidelity.py`. `n/m`: n of m objects came back exactly. Peers ran with the options that lose least: dump and", "load go on after errors (`--force`)."]
    for server, version, columns in results:
        lines += ["", "## %s %s" % (server, version), "", "| | " + " | ".join(name for name, _, _, _ in columns) + " |", "|---" * (len(columns) + 1) + "|"]
        for kind in KINDS:
            cells = []
            for _, result, _, _ in columns:
                count, lost = result[kind]
                cells.append("-" if not count else "%d/%d" % (count - len(lost), count) if lost else "all %d" % count)
            if any(cell != "-" for cell in cells):
                lines.append("| %s | %s |" % (kind, " | ".join(cells)))
        lines.append("| exit status | " + " | ".join(str(status) for _, _, status, _ in columns) + " |")
        for name, result, _, said in columns:
            lost = [(kind, result[kind][1]) for kind in KINDS if result[kind][1]]
            if lost:
                lines += ["", "**%s** lost or changed:" % name]
                lines += ["- %s: %s" % (kind, "everything" if len(names) == result[kind][0] else shown(names)) for kind, names in lost]
            if said:
                lines += ["- it said: `%s`" % said.replace("`", "'").replace("\n", " ")[-300:].replace(measuring.bench.folder, "…")]
    return "\n".join(lines) + "\n"


def shown(names, most=8):
    printable = ["".join(c if c.isprintable() else "?" for c in name) for name in names]
    return ", ".join(printable[:most]) + (" and %d more" % (len(printable) - most) if len(printable) > most else "")


def source_of(kind, name):
    server = fresh(kind, name)
    for torture in SETS[name]:
        path = os.path.join(PROJECT, "tests/torture", torture + ".sql")
        with open(path, "rb") as file:
            status, said = attempt(kind.client(server.socket, "--default-character-set=utf8mb4", "--max-allowed-packet=1G", "--local-infile=1"), stdin=file, stdout=subprocess.DEVNULL)
        measuring.need(status == 0, "%s: %s" % (path, said))
    return server


def main():
    parser = argparse.ArgumentParser(description="see the top of this file")
    parser.add_argument("--only", default="mariadb,mariadb118,mysql")
    parser.add_argument("--out", default=os.path.join(PROJECT, "docs/fidelity.md"))
    parser.add_argument("--holdfast", default=os.path.join(PROJECT, "target/release/holdfast"))
    arguments = parser.parse_args()
    measuring.bench.folder = tempfile.mkdtemp(prefix="hf-fidelity-", dir="/tmp")
    measuring.bench.holdfast = arguments.holdfast
    prefixes = {"mariadb": "HOLDFAST_MARIADB_DIR", "mariadb118": "HOLDFAST_MARIADB118_DIR", "mysql": "HOLDFAST_MYSQL_DIR"}
    results = []
    try:
        for name in arguments.only.split(","):
            kind = Kind("MySQL" if name == "mysql" else "MariaDB", os.environ[prefixes[name]])
            say("%s %s: filling a source" % (kind.name, kind.version()))
            source = source_of(kind, name)
            wanted, columns = None, []
            for contender, copy in contenders(kind):
                started = time.monotonic()
                target, status, said = copy(source, "%s-%s" % (name, contender.split()[0]))
                if wanted is None:
                    # Servers mangle names in grants when they read their tables again: both sides shall have done so.
                    source.sql("FLUSH PRIVILEGES")
                    wanted = snapshot(source)
                try:
                    target.sql("FLUSH PRIVILEGES")
                    result = compare(wanted, snapshot(target))
                except Failed as failure:
                    result, said = compare(wanted, {}), "%s %s" % (said, failure)
                columns.append((contender, result, status, said))
                count, lost = (sum(result[kind][0] for kind in KINDS), sum(len(result[kind][1]) for kind in KINDS))
                say("  %-14s %4d of %d objects, exit status %d, %.0f s" % (contender, count - lost, count, status, time.monotonic() - started))
                target.kill()
            source.kill()
            results.append((kind.name, kind.version(), columns))
        with open(arguments.out, "w", encoding="utf-8", errors="replace") as file:
            file.write(page(results))
        say("written to %s" % os.path.relpath(arguments.out, os.getcwd()))
    finally:
        for server in list(Server.running):
            with contextlib.suppress(Exception):
                server.kill()
        shutil.rmtree(measuring.bench.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
