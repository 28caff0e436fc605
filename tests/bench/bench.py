#!/usr/bin/env python3
"""Measures Holdfast and what it competes with side by side, in one run, and writes docs/benchmarks.md. `make bench` starts it.

    bench.py [--quick] [--only SECTION,...] [--out FILE]

SECTION is dump (and load), replay-mariadb, replay-mysql, freshness, cost. --quick takes small sizes, to try things out: its
figures mean nothing, and go to target/benchmarks-quick.md. These variables change the sizes:

    HOLDFAST_BENCH_ROWS                  rows in each of the 4 tables that are dumped and loaded      1,000,000
    HOLDFAST_BENCH_DUMP_ROUNDS           times that each dumps; the best counts                               3
    HOLDFAST_BENCH_LOAD_ROUNDS           times that each loads; the client, which is slow, does it once       2
    HOLDFAST_BENCH_BASE_ROWS             rows in each of the 4 tables that are written to               100,000
    HOLDFAST_BENCH_MARIADB_TRANSACTIONS  transactions to replay                                         100,000
    HOLDFAST_BENCH_MYSQL_TRANSACTIONS                                                                    40,000
    HOLDFAST_BENCH_REPLAY_ROUNDS         times that each replays; the client does it once                     2
    HOLDFAST_BENCH_FRESHNESS_SECONDS                                                                         60
    HOLDFAST_BENCH_COST_ROUNDS           rounds of load with and without readers of the binlog               5
    HOLDFAST_BENCH_COST_SECONDS          how long each load of a round is                                    12
    HOLDFAST_BENCH_FOLDER                where the temporary folder is made                                /tmp

HOLDFAST_MYDUMPER is the folder with `mydumper` and `myloader`, where they are not the ones that the set-up installs.

Every result is checked: what was loaded or replayed must have the checksums of the source's tables. What failed is shown
as failed and never as a time. Servers listen on sockets and on loopback ports of their own and are ended by process id.
Holdfast's own reports are believed for the length of its phases only, within the length of the whole command.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SECTIONS = ["dump", "replay-mariadb", "replay-mysql", "freshness", "cost"]
TABLES = ["sbtest.sbtest%d" % number for number in range(1, 5)]
WORKERS = 4  # as many as `holdfast restore` has replaying at its default of two threads
WRITERS = 4  # connections of sysbench
# Set by main: sizes, folder, holdfast. What was started in the background is here to be ended.
bench = argparse.Namespace(started=[])


class Failed(Exception):
    """A measurement that came to nothing; says why."""


def need(condition, why):
    if not condition:
        raise Failed(" ".join(why.split()))


def say(text):
    print("bench: " + text, flush=True)


# --- processes
def spawn(command, **options):
    process = subprocess.Popen([str(word) for word in command], start_new_session=True, **options)
    bench.started.append(process)
    return process


def run(command, **options):
    """Runs a command that is not measured and returns what it printed."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    done = subprocess.run([str(word) for word in command], text=True, check=False, **options)
    need(done.returncode == 0, "%s ended with %d: %s" % (os.path.basename(str(command[0])), done.returncode, done.stderr.strip()[-600:]))
    return done.stdout


def tail(path):
    with contextlib.suppress(OSError), open(path, errors="replace") as file:
        return file.read()[-600:]
    return "no log"


def status_kib(process, field):
    with contextlib.suppress(OSError), open("/proc/%d/status" % process) as file:
        found = re.search(r"^%s:\s*(\d+) kB" % field, file.read(), re.M)
        return int(found.group(1)) if found else 0
    return 0


def processor_seconds(process):
    """Its own; 0 where it has ended."""
    with contextlib.suppress(OSError), open("/proc/%d/stat" % process) as file:
        fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0


def children(process):
    found = []
    with contextlib.suppress(OSError):
        for task in os.listdir("/proc/%d/task" % process):
            with contextlib.suppress(OSError), open("/proc/%d/task/%s/children" % (process, task)) as file:
                found += [int(child) for child in file.read().split()]
    return found


class Watch(threading.Thread):
    """The peak resident memory of some processes: each one's own high-water mark, or the highest sum with all that they start.

    With `alone` what they start does not count, and `cpu` is what the first one has used itself."""

    def __init__(self, processes, alone):
        super().__init__(daemon=True)
        self.processes, self.alone, self.over = processes, alone, threading.Event()
        self.marks, self.sum, self.cpu = {}, 0, 0
        self.start()

    def run(self):
        while not self.over.wait(0.1):
            for process in self.processes:
                self.marks[process] = max(self.marks.get(process, 0), status_kib(process, "VmHWM"))
            if self.alone:
                self.cpu = max(self.cpu, processor_seconds(self.processes[0]))
            else:
                self.sum = max(self.sum, sum(status_kib(process, "VmRSS") for process in self.tree()))

    def tree(self):
        found = list(self.processes)
        for process in found:
            found += children(process)
        return found

    def mib(self):
        self.over.set()
        self.join()
        return max([self.sum] + list(self.marks.values())) / 1024


class Measured:
    """One timed run: seconds by the wall clock, peak memory, processor seconds of the commands (no server's)."""

    def __init__(self, seconds, mib, cpu, output=""):
        self.seconds, self.mib, self.cpu, self.output = seconds, mib, cpu, output


def measure(*commands, stdin=None, stdout=subprocess.PIPE, alone=False):
    """Runs commands, each one's output piped to the next one; all must succeed. `alone`: memory of the first process only."""
    os.sync()  # what others have written before is not to be waited for now
    started, running, errors = time.monotonic(), [], tempfile.TemporaryFile(dir=bench.folder)
    source = stdin if stdin is not None else subprocess.DEVNULL
    for number, command in enumerate(commands):
        sink = stdout if number == len(commands) - 1 else subprocess.PIPE
        running.append(spawn(command, stdin=source, stdout=sink, stderr=errors))
        if number > 0:
            source.close()
        source = running[-1].stdout
    watch = Watch([process.pid for process in running], alone)
    output = source.read().decode() if stdout == subprocess.PIPE else ""
    cpu = 0
    for process in running:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        cpu += usage.ru_utime + usage.ru_stime
    seconds = time.monotonic() - started
    result = Measured(seconds, watch.mib(), watch.cpu if alone else cpu, output)
    errors.seek(0)
    said = errors.read().decode(errors="replace").strip()[-600:]
    for process, command in zip(running, commands):
        need(process.returncode == 0, "%s ended with %d: %s" % (os.path.basename(str(command[0])), process.returncode, said))
    return result


class Result:
    """All runs of one contender at one task; it has failed if one of them did."""

    def __init__(self, name):
        self.name, self.runs, self.failure, self.facts = name, [], None, {}

    def best(self):
        return min(self.runs, key=lambda measured: measured.seconds)

    def seconds(self):
        return None if self.failure or not self.runs else self.best().seconds


def contest(rounds, contenders):
    """Runs contenders in turns. Each is (name, rounds at most, function that takes its Result and returns a Measured)."""
    results = [Result(name) for name, _, _ in contenders]
    for number in range(rounds):
        for result, (name, most, function) in zip(results, contenders):
            if number >= most or result.failure:
                continue
            try:
                measured = function(result)
            except Failed as failure:
                result.failure = str(failure)
                say("  %s FAILED: %s" % (name, failure))
                continue
            result.runs.append(measured)
            used = "  %5.0f MiB  %6.2f s of processor" % (measured.mib, measured.cpu) if measured.mib else ""
            say("  %-34s %7.2f s%s" % (name, measured.seconds, used))
    return results


# --- servers
class Kind:
    """MariaDB or MySQL, and how each says what we need."""

    def __init__(self, name, prefix):
        self.name, self.prefix, self.mariadb = name, prefix, name == "MariaDB"
        self.daemon = os.path.join(prefix, "usr/sbin", "mariadbd" if self.mariadb else "mysqld")
        self.position = "SHOW MASTER STATUS" if self.mariadb else "SHOW BINARY LOG STATUS"
        need(os.path.exists(self.daemon), "no %s in %s" % (name, prefix))

    def program(self, name):
        return os.path.join(self.prefix, "usr/bin", name)

    def client(self, to, *options):
        return [self.program("mariadb" if self.mariadb else "mysql"), "--no-defaults", "--user=root", "--socket=" + to, *options]

    def version(self):
        return re.search(r"Ver (\S+)", run([self.daemon, "--no-defaults", "--version"])).group(1)

    def base_options(self, data):
        # In /tmp, a server that starts removes the temporary tables of those that run.
        temporary = os.path.join(os.path.dirname(data), "tmp")
        os.makedirs(temporary, exist_ok=True)
        options = ["--no-defaults", "--basedir=" + os.path.join(self.prefix, "usr"), "--datadir=" + data, "--tmpdir=" + temporary]
        if self.mariadb:
            options.append("--plugin-dir=" + os.path.join(self.prefix, "usr/lib/mysql/plugin"))
        else:
            options.append("--secure-file-priv=NULL")  # the packaged default is a folder that is not there
        return options + (["--user=root"] if os.geteuid() == 0 else [])

    def initialise(self, data):
        if self.mariadb:
            settings = ["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve", "--force"]
            run([self.program("mariadb-install-db")] + self.base_options(data) + settings)
        else:
            run([self.daemon] + self.base_options(data) + ["--initialize-insecure"])


def mariadb():
    return Kind("MariaDB", os.environ["HOLDFAST_MARIADB_DIR"])


def mysql():
    return Kind("MySQL", os.environ["HOLDFAST_MYSQL_DIR"])


def is_about(process, folder):
    """Whether a process has a folder in its command line: a process id may be somebody else's by now."""
    with contextlib.suppress(OSError), open("/proc/%d/cmdline" % process) as file:
        return folder in file.read()
    return False


class Server:
    """A running server with its data in `folder`: one that we started, or one that `holdfast restore --scratch` did."""

    running = []

    def __init__(self, kind, folder):
        self.kind, self.folder, self.socket = kind, folder, os.path.join(folder, "server.sock")
        self.child, self.port = None, None
        Server.running.append(self)

    @classmethod
    def start(cls, kind, name, options):
        folder = os.path.join(bench.folder, name)
        os.makedirs(os.path.join(folder, "tmp"))
        data = os.path.join(folder, "data")
        kind.initialise(data)
        server = cls(kind, folder)
        places = ["--socket=" + server.socket, "--pid-file=" + os.path.join(folder, "pid"), "--tmpdir=" + os.path.join(folder, "tmp")]
        with open(os.path.join(folder, "log"), "wb") as log:
            command = [kind.daemon] + kind.base_options(data) + places + options
            server.child = spawn(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while not server.answers():
            need(server.child.poll() is None and time.monotonic() < deadline, "%s does not start: %s" % (name, tail(os.path.join(folder, "log"))))
            time.sleep(0.1)
        return server

    @classmethod
    def source(cls, kind, name):
        """One that is written to: durable at every commit, row based binlog."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = "--server-id=1 --log-bin=binlog --binlog-format=ROW --innodb-buffer-pool-size=1G --max-allowed-packet=256M"
        options += " --skip-name-resolve --event-scheduler=OFF --bind-address=127.0.0.1"
        by_kind = "--gtid-strict-mode=ON" if kind.mariadb else "--gtid-mode=ON --enforce-gtid-consistency=ON --mysqlx=OFF"
        server = cls.start(kind, name, (options + " " + by_kind).split() + ["--port=%d" % port])
        server.port = port
        server.sql("SET GLOBAL innodb_flush_log_at_trx_commit=1; SET GLOBAL sync_binlog=1; CREATE DATABASE sbtest")
        return server

    def answers(self):
        with contextlib.suppress(Failed):
            return self.sql("SELECT 1") == [["1"]]
        return False

    def sql(self, text):
        output = run(self.kind.client(self.socket, "--batch", "--skip-column-names", "--raw", "-e", text))
        return [line.split("\t") for line in output.splitlines()]

    def position(self):
        file, offset = self.sql(self.kind.position)[0][:2]
        return file, int(offset)

    def variables(self):
        return {row[0]: row[1] for row in self.sql("SHOW GLOBAL VARIABLES")}

    def fingerprint(self):
        """What must be equal: rows and checksum of each table."""
        count = " UNION ALL ".join("SELECT '%s', COUNT(*) FROM %s" % (table, table) for table in TABLES)
        return sorted(map(tuple, self.sql(count))), self.sql("CHECKSUM TABLE " + ", ".join(TABLES))

    def process(self):
        with open(os.path.join(self.folder, "pid")) as file:
            return int(file.read())

    def kill(self):
        """Ends it at once and removes its folder: it is not needed any more."""
        if self.child:
            self.child.kill()
            self.child.wait()
        else:
            with contextlib.suppress(OSError, ValueError):
                process = self.process()
                if is_about(process, self.folder):
                    os.kill(process, signal.SIGKILL)
                while is_about(process, self.folder):
                    time.sleep(0.05)
        Server.running.remove(self)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def served(server):
    try:
        yield server
    finally:
        server.kill()


def refuse_difference(server, wanted):
    need(server.fingerprint() == wanted, "the tables are not those of the source")


def sysbench_command(server, *arguments):
    place = ["--mysql-socket=" + server.socket, "--mysql-user=root", "--mysql-db=sbtest", "--db-driver=mysql", "--tables=4"]
    return ["sysbench"] + place + list(arguments)


def sysbench(server, *arguments):
    return run(sysbench_command(server, *arguments))


def rate(output):
    """The transactions per second that sysbench reports."""
    return float(re.search(r"transactions:.*\(([\d.]+) per sec", output).group(1))


def fill(server, rows):
    """The tables to measure with. Their binlogs are of no use to anybody."""
    say("filling 4 tables with %s rows each on %s" % (count(rows), server.kind.name))
    with relaxed(server):
        sysbench(server, "--table-size=%d" % rows, "--threads=2", "oltp_read_write", "prepare")
    server.sql("FLUSH BINARY LOGS")
    server.sql("PURGE BINARY LOGS TO '%s'" % server.position()[0])


@contextlib.contextmanager
def relaxed(server):
    """Not durable for a while, where only the outcome matters."""
    server.sql("SET GLOBAL innodb_flush_log_at_trx_commit=0; SET GLOBAL sync_binlog=0")
    yield
    server.sql("SET GLOBAL innodb_flush_log_at_trx_commit=1; SET GLOBAL sync_binlog=1")


# --- Holdfast
CONFIGURATION = """
cluster = "bench"
host = "db1"
state_dir = "state"

[repository]
descriptor = "kit/repository.public"

[source]
socket = "%s"
user = "root"

[[provider]]
name = "a"
kind = "file"
path = "%s/a"

[[provider]]
name = "b"
kind = "file"
path = "%s/b"
"""


class Site:
    """An installation of Holdfast beside a source: kit, configuration, two folders as providers, and perhaps the agent."""

    def __init__(self, name, source):
        self.folder, self.source, self.agent = os.path.join(bench.folder, name), source, None
        for provider in "ab":
            os.makedirs(self.path(provider))
        self.holdfast("keys", "new", "--out", self.path("kit"))
        with open(self.path("holdfast.toml"), "w") as file:
            file.write(CONFIGURATION % (source.socket, self.folder, self.folder))
        request = subprocess.run(self.command("init"), capture_output=True, text=True, check=False)
        request = re.search(r"holdfast-writer:\S+", request.stdout + request.stderr).group(0)
        certificate = ["--out", self.path("state/certificate"), request]
        self.holdfast("keys", "certify", "--kit", self.path("kit"), "--name", "db1", *certificate)
        self.holdfast("init")

    def path(self, name):
        return os.path.join(self.folder, name)

    def command(self, *arguments):
        return [bench.holdfast, "--config", self.path("holdfast.toml"), *arguments]

    def holdfast(self, *arguments):
        return run(self.command(*arguments))

    def stored_bytes(self, provider="a"):
        return folder_bytes(self.path(provider))

    def restore(self, name, *arguments):
        """The command that restores from one provider and the kit alone into a new server in the folder `name`."""
        read = ["restore", "--provider", "file:" + self.path("b"), "--kit", self.path("kit"), "--json"]
        target = ["--scratch", os.path.join(bench.folder, name), "--server-prefix", self.source.kind.prefix]
        return [bench.holdfast] + read + target + list(arguments)

    def restored(self, name, *arguments):
        """Restores; returns the server, what was measured, and the report."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(os.path.join(bench.folder, name))
        measured = measure(self.restore(name, *arguments), alone=True)
        server = Server(self.source.kind, os.path.join(bench.folder, name))
        return server, measured, json.loads(measured.output)

    def start_agent(self):
        with open(self.path("agent.log"), "ab") as log:
            self.agent = spawn(self.command("run"), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def stop_agent(self):
        """Returns the agent's peak memory in MiB and processor seconds."""
        mib = status_kib(self.agent.pid, "VmHWM") / 1024
        cpu = processor_seconds(self.agent.pid)
        self.agent.send_signal(signal.SIGTERM)
        need(self.agent.wait(60) == 0, "`holdfast run` ended with %s" % self.agent.returncode)
        return mib, cpu

    def wait(self, what, is_so, limit=300):
        deadline = time.monotonic() + limit
        while not is_so():
            need(self.agent.poll() is None, "`holdfast run` ended: %s" % tail(self.path("agent.log")))
            need(time.monotonic() < deadline, "not within %d s: %s" % (limit, what))
            time.sleep(0.2)

    def wait_for_backup(self):
        def complete():
            backups = json.loads(self.holdfast("list", "--json"))["backups"]
            return any(len(backup["providers"]) == 2 for backup in backups)

        self.wait("a first backup", complete)
        self.wait("the end of the backup", lambda: not self.status().get("backup_running", True))

    def status(self):
        with contextlib.suppress(OSError, ValueError), open(self.path("state/status.json")) as file:
            return json.load(file)
        return {}

    def wait_until_level(self):
        """Until both providers have all that the source has committed; nobody may be writing."""
        file, offset = self.source.position()

        def level():
            status = self.status()
            lanes = [lane["durable"] or {} for lane in status.get("providers", [])]
            mine = status.get("pid") == self.agent.pid and not status.get("backup_running")
            return mine and len(lanes) == 2 and all((lane.get("file"), lane.get("end")) == (file, offset) for lane in lanes)

        self.wait("both providers level with the source", level)


def folder_bytes(folder):
    return sum(os.lstat(os.path.join(at, name)).st_size for at, _, names in os.walk(folder) for name in names)


def program_in(folder, name):
    paths = [os.path.join(folder, below, name) for below in ("", "bin", "usr/bin")]
    return next((path for path in paths if os.access(path, os.X_OK)), None)


# --- dump and load
class Mydumper:
    """mydumper and myloader of whatever version there is. 1.0 and later compress with zstd, Debian's 0.10 with gzip only."""

    def __init__(self):
        folder = os.environ.get("HOLDFAST_MYDUMPER", "")
        self.dumper, self.loader = program_in(folder, "mydumper"), program_in(folder, "myloader")
        need(self.dumper and self.loader, "no mydumper: HOLDFAST_MYDUMPER is not set to its folder")
        self.version = re.search(r"(\d+\.\d+\.\d+(?:-\d+)?)", run([self.dumper, "--version"])).group(1)
        self.is_old = int(self.version.split(".")[0]) < 1
        # Its own choice, and the fastest level, in fairness: it may be what Holdfast takes.
        self.ways = {"gzip": ["--compress"]} if self.is_old else {
            "zstd -3": ["--compress=ZSTD"],
            "zstd -1": ["--exec-per-thread=%s -1 -c" % shutil.which("zstd"), "--exec-per-thread-extension=.zst"],
        }

    def name(self, program, way):
        return "%s %s -t 2, %s" % (program, self.version, way)

    def dump(self, source, out, way):
        place = ["--socket", source.socket, "--user", "root", "--database", "sbtest", "--outputdir", out]
        return measure([self.dumper] + place + ["--threads", "2"] + self.ways[way])

    def load(self, target, folder):
        place = ["--socket", target.socket, "--user", "root", "--directory", folder]
        return measure([self.loader] + place + ["--threads", "2"])


def dumpers(site, source, mydumper, out):
    """The contenders; the last dump of each stays in `out` to be loaded."""

    def holdfast(result):
        before = site.stored_bytes()
        measured = measure(site.command("backup", "--json"), alone=True)
        result.facts["bytes"] = site.stored_bytes() - before
        return measured

    def with_mydumper(way):
        def dump(result):
            shutil.rmtree(out(way), ignore_errors=True)
            measured = mydumper.dump(source, out(way), way)
            result.facts["bytes"] = folder_bytes(out(way))
            return measured

        return mydumper.name("mydumper", way), 99, dump

    def with_mariadb_dump(result):
        what = ["--single-transaction", "--quick", "--master-data=2", "--databases", "sbtest"]
        dump = [source.kind.program("mariadb-dump"), "--no-defaults", "--user=root", "--socket=" + source.socket] + what
        with open(out("dump.sql.zst"), "wb") as file:
            measured = measure(dump, ["zstd", "-q", "-3", "-c"], stdout=file)
        result.facts["bytes"] = os.path.getsize(out("dump.sql.zst"))
        return measured

    peers = [with_mydumper(way) for way in mydumper.ways]
    return [("holdfast backup", 99, holdfast)] + peers + [("mariadb-dump, zstd -3", 99, with_mariadb_dump)]


def options_like(server, folder):
    """The options that a server runs with, for another one in `folder`; places that Server.start gives itself are left out."""
    with open("/proc/%d/cmdline" % server.process()) as file:
        options = file.read().split("\0")[1:-1]
    ours = ("--no-defaults", "--datadir", "--basedir", "--user", "--plugin-dir", "--secure-file-priv", "--socket", "--pid-file", "--tmpdir", "--log-error")
    return [option.replace(server.folder, folder) for option in options if option.split("=")[0] not in ours]


def loaders(site, source, mydumper, out, wanted):
    """The contenders, in the order of what they load. Ours goes first: the others' servers run with the options of the one it makes."""
    target_options = []

    def holdfast(result):
        server, measured, report = site.restored("target", "--backup-only")
        with served(server):
            target_options[:] = options_like(server, os.path.join(bench.folder, "target"))
            refuse_difference(server, wanted)
        phases = report["phases"]
        if measured.seconds < result.facts.get("whole", 1e9):
            result.facts.update(whole=measured.seconds, phases=phases)
        # As for the others: without making the server. What is left is the four phases, comparison included.
        measured.seconds = sum(phases.values())
        return measured

    def peer(load):
        def run_it(_):
            need(target_options, "no server of holdfast to copy the options of")
            with served(Server.start(source.kind, "target", target_options)) as server:
                measured = load(server)
                refuse_difference(server, wanted)
                return measured

        return run_it

    def client(server):
        with open(out("dump.sql.zst"), "rb") as file:
            return measure(["zstd", "-q", "-d", "-c"], source.kind.client(server.socket), stdin=file)

    def myloader(way):
        return mydumper.name("myloader", way), 99, peer(lambda server: mydumper.load(server, out(way)))

    peers = [myloader(way) for way in mydumper.ways]
    return [("holdfast restore", 99, holdfast)] + peers + [("mariadb client", 1, peer(client))]


def dump_and_load():
    sizes, kind, mydumper = bench.sizes, mariadb(), Mydumper()
    with served(Server.source(kind, "source")) as source:
        fill(source, sizes.rows)
        wanted = source.fingerprint()  # also reads everything once, so that the first contender is not the one that warms up
        sizes_of = "SELECT SUM(data_length + index_length) FROM information_schema.tables WHERE table_schema = 'sbtest'"
        data_bytes = int(source.sql(sizes_of)[0][0])
        site = Site("site", source)
        os.mkdir(os.path.join(bench.folder, "peers"))
        out = lambda name: os.path.join(bench.folder, "peers", name)
        say("dump, %d rounds" % sizes.dump_rounds)
        dumps = contest(sizes.dump_rounds, dumpers(site, source, mydumper, out))
        say("load, %d rounds" % sizes.load_rounds)
        loads = contest(sizes.load_rounds, loaders(site, source, mydumper, out, wanted))
    for dump, load in zip(dumps, loads):
        if load.failure and not dump.failure:
            dump.failure = "what it dumped could not be shown to be whole: " + load.failure
    for name in ("site", "peers"):
        shutil.rmtree(os.path.join(bench.folder, name))
    return dump_page(dumps, data_bytes), load_page(loads)


# --- replay
def replay_settings():
    """The settings that Holdfast gives a server that replays, from its source code, so that the peers have the same."""
    with open(os.path.join(PROJECT, "agent/src/restore/replica.rs")) as file:
        table = re.search(r"const SETTINGS: .*?= &\[(.*?)\n\];", file.read(), re.S)
    settings = re.findall(r'\("(\w+)", "(\w+)"\)', table.group(1)) if table else []
    need(len(settings) > 5, "agent/src/restore/replica.rs has no SETTINGS any more")
    return settings


def prepare_replay(server, base_gtid):
    """What Holdfast does to its own server before it replays."""
    known = server.variables()
    workers = "slave_parallel_threads" if server.kind.mariadb else "replica_parallel_workers"
    for name, value in [("server_id", "4242"), (workers, str(WORKERS))] + replay_settings():
        if name in known and known[name].lower() != value.lower():
            server.sql("SET GLOBAL %s = %s" % (name, value if value.isdigit() else "'%s'" % value))
    if server.kind.mariadb:
        server.sql("SET GLOBAL gtid_slave_pos = '%s'" % base_gtid)
    else:
        server.sql("RESET BINARY LOGS AND GTIDS; SET GLOBAL gtid_purged = '%s'" % base_gtid)


def replicate(server, source, start, end):
    """Lets a server be a replica of the source from `start` on until it has applied all up to `end`; returns the seconds."""
    if server.kind.mariadb:
        change = "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=%d, MASTER_USER='replica', MASTER_PASSWORD='replica', "
        change += "MASTER_USE_GTID=no, MASTER_LOG_FILE='%s', MASTER_LOG_POS=%d"
        go, show = "START SLAVE", "SHOW SLAVE STATUS"
        columns = ["Relay_Master_Log_File", "Exec_Master_Log_Pos", "Last_IO_Error", "Last_SQL_Error"]
    else:
        change = "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=%d, SOURCE_USER='replica', SOURCE_PASSWORD='replica', "
        change += "SOURCE_SSL=0, GET_SOURCE_PUBLIC_KEY=1, SOURCE_AUTO_POSITION=0, SOURCE_LOG_FILE='%s', SOURCE_LOG_POS=%d"
        go, show = "START REPLICA", "SHOW REPLICA STATUS"
        columns = ["Relay_Source_Log_File", "Exec_Source_Log_Pos", "Last_IO_Error", "Last_SQL_Error"]
    server.sql(change % (source.port, *start))
    started = time.monotonic()
    server.sql(go)
    while True:
        file, offset, *errors = named(server, show, columns)
        need(not any(errors), "the replica stopped: %s" % " ".join(errors))
        if (file, offset) == (end[0], str(end[1])):
            break
        need(time.monotonic() - started < 3600, "the replica is not level after an hour")
        time.sleep(0.1)
    server.sql("FLUSH LOCAL ENGINE LOGS")
    return time.monotonic() - started


def named(server, statement, columns):
    """Some columns of a statement that shows one row; columns may be empty."""
    output = run(server.kind.client(server.socket, "--batch", "--raw", "-e", statement))
    lines = output.split("\n")
    row = dict(zip(lines[0].split("\t"), lines[1].split("\t"))) if len(lines) > 1 else {}
    return [row.get(column, "") for column in columns]


def binlog_files(source, start):
    return [os.path.join(source.folder, "data", row[0]) for row in source.sql("SHOW BINARY LOGS") if row[0] >= start]


def replayers(site, source, wanted):
    """The contenders; each starts from the base and must end with the source's tables."""
    kind, end = source.kind, source.position()

    def holdfast(result):
        server, measured, report = site.restored("target")
        with served(server):
            refuse_difference(server, wanted)
        result.facts["transactions"] = report["transactions_replayed"]
        measured.seconds = report["phases"]["replay"]
        return measured

    def peer(replay):
        def run_it(_):
            # The same base in the same state: loaded and read once by the same program, into a server with the same options.
            server, _, report = site.restored("target", "--backup-only")
            with served(server):
                base = report["position"]
                prepare_replay(server, base["gtid"])
                measured = replay(server, (base["file"], int(base["offset"])))
                refuse_difference(server, wanted)
                return measured

        return run_it

    def replica(server, start):
        return Measured(replicate(server, source, start, end), 0, 0)

    def client(server, start):
        decode = [kind.program("mariadb-binlog" if kind.mariadb else "mysqlbinlog"), "--no-defaults", "--start-position=%d" % start[1]]
        measured = measure(decode + binlog_files(source, start[0]), kind.client(server.socket, "--binary-mode"))
        started = time.monotonic()
        server.sql("FLUSH LOCAL ENGINE LOGS")
        measured.seconds += time.monotonic() - started
        return measured

    client_name = "mariadb-binlog, mariadb" if kind.mariadb else "mysqlbinlog, mysql"
    replica_name = "replica, %d workers" % WORKERS
    return [("holdfast restore, replay", 99, holdfast), (replica_name, 99, peer(replica)), (client_name, 1, peer(client))]


def small_source(kind, name):
    """A source to be written to, with an account for replicas."""
    server = Server.source(kind, name)
    account = "replica@'127.0.0.1'"
    server.sql("SET sql_log_bin=0; CREATE USER %s IDENTIFIED BY 'replica'; GRANT REPLICATION SLAVE ON *.* TO %s" % (account, account))
    fill(server, bench.sizes.base_rows)
    return server


def written_bytes(source, start):
    sizes = [(row[0], int(row[1])) for row in source.sql("SHOW BINARY LOGS")]
    return sum(size for name, size in sizes if name >= start[0]) - start[1]


def replay(kind, transactions):
    sizes = bench.sizes
    with served(small_source(kind, "source")) as source:
        site = Site("site", source)
        site.start_agent()
        site.wait_for_backup()
        start = source.position()
        say("%s transactions on %s, archived as they come" % (count(transactions), kind.name))
        with relaxed(source):
            limits = ["--events=%d" % transactions, "--time=0", "--threads=%d" % WRITERS, "--table-size=%d" % sizes.base_rows]
            sysbench(source, *limits, "oltp_write_only", "run")
        site.wait_until_level()
        archived = site.stored_bytes(), written_bytes(source, start)
        site.stop_agent()
        wanted = source.fingerprint()
        say("replay, %d rounds" % sizes.replay_rounds)
        results = contest(sizes.replay_rounds, replayers(site, source, wanted))
    shutil.rmtree(site.folder)
    return replay_page(kind, results, transactions, archived[1])


# --- freshness
def segment_range(path):
    """The binlog file, start and end that a segment's header tells (proto/FORMAT.md §3.2, §7.1)."""
    with open(path, "rb") as file:
        data = file.read(1 << 16)
    core = data[12 : 12 + struct.unpack(">I", data[8:12])[0]]
    at = 109 + struct.unpack(">H", core[107:109])[0] + 10
    while at < len(core):
        tag, length = struct.unpack(">HI", core[at : at + 6])
        if tag == 0x8001:
            summary = json.loads(core[at + 6 : at + 6 + length])
            return summary["file"], summary["start"], summary["end"]
        at += 6 + length
    raise Failed("a segment without a summary: " + path)


def segments(provider):
    """Every small segment of a provider: its range, and when it got its name, which is after its bytes were synced."""
    found = []
    for at, _, names in os.walk(os.path.join(provider, "clusters")):
        if "/small/" in at + "/":
            paths = [os.path.join(at, name) for name in names if not name.startswith(".")]
            found += [segment_range(path) + (os.stat(path).st_ctime,) for path in paths]
    return found


def durable_at(place, archived):
    """When the bytes before `place` were durable; `archived` is what `segments` found."""
    file, offset = place
    times = [moment for name, start, end, moment in archived if name == file and start < offset <= end]
    need(times, "what was committed at %s:%d is in no segment" % place)
    return min(times)


def mark(server, seconds):
    """Commits a small transaction ten times a second; returns for each when it was sent, and a position behind it."""
    server.sql("CREATE TABLE sbtest.marker (id INT PRIMARY KEY)")
    command = server.kind.client(server.socket, "--batch", "--skip-column-names", "--unbuffered")
    client = spawn(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    marks, started = [], time.monotonic()
    for number in range(int(seconds * 10)):
        time.sleep(max(0, started + number / 10 - time.monotonic()))
        sent = time.time()
        client.stdin.write("INSERT INTO sbtest.marker VALUES (%d); %s;\n" % (number, server.kind.position))
        file, offset = client.stdout.readline().split("\t")[:2]
        marks.append((sent, (file, int(offset))))
    client.stdin.close()
    need(client.wait() == 0, "the client that marks ended with %d" % client.returncode)
    return marks


def sync_seconds(folder):
    """How long it takes to sync a folder after a new file got into it: the one step that a file's times do not show."""
    times = []
    for number in range(20):
        path = os.path.join(folder, "probe%d" % number)
        with open(path, "wb") as file:
            file.write(b"x" * 4096)
            os.fsync(file.fileno())
        handle = os.open(folder, os.O_RDONLY)
        started = time.monotonic()
        os.fsync(handle)
        times.append(time.monotonic() - started)
        os.close(handle)
        os.unlink(path)
    return statistics.median(times)


def freshness():
    seconds = bench.sizes.freshness_seconds
    with served(small_source(mariadb(), "source")) as source:
        site = Site("site", source)
        site.start_agent()
        site.wait_for_backup()
        say("freshness, %d s at 100 transactions a second" % seconds)
        load = ["--rate=100", "--time=%d" % (seconds + 2), "--threads=%d" % WRITERS, "--table-size=%d" % bench.sizes.base_rows]
        command = sysbench_command(source, *load, "oltp_write_only", "run")
        writer = spawn(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        time.sleep(1)
        marks = mark(source, seconds)
        written = rate(writer.communicate()[0])
        need(writer.returncode == 0, "sysbench ended with %d" % writer.returncode)
        site.wait_until_level()
        mib, cpu = site.stop_agent()
        both = [segments(site.path(provider)) for provider in "ab"]
        waits = sorted(max(durable_at(place, one) for one in both) - sent for sent, place in marks)
        sync = sync_seconds(site.path("a"))
    shutil.rmtree(site.folder)
    # The clock of file systems ticks a few milliseconds behind.
    need(waits[0] >= -0.02, "a transaction was durable %.3f s before it was sent: the clock was set" % -waits[0])
    say("  p50 %.2f s, p99 %.2f s, most %.2f s" % (quantile(waits, 0.5), quantile(waits, 0.99), waits[-1]))
    return freshness_page(waits, written, len(both[0]), sync, mib, cpu)


def quantile(ordered, part):
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


# --- cost to the source
def transactions_per_second(source):
    sizes = bench.sizes
    limits = ["--time=%d" % sizes.cost_seconds, "--threads=%d" % WRITERS, "--table-size=%d" % sizes.base_rows]
    return rate(sysbench(source, *limits, "oltp_write_only", "run"))


def receiving_replica(source):
    """A replica that only receives: what a source is read by in most installations."""
    options = "--server-id=77 --skip-networking --innodb-buffer-pool-size=64M --relay-log=relay --skip-slave-start"
    server = Server.start(source.kind, "replica", options.split())
    file, offset = source.position()
    change = "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=%d, MASTER_USER='replica', MASTER_PASSWORD='replica', "
    server.sql(change % source.port + "MASTER_LOG_FILE='%s', MASTER_LOG_POS=%d" % (file, offset))
    return server


def wait_until_received(replica, source):
    wanted = [source.position()[0], str(source.position()[1])]
    deadline = time.monotonic() + 300
    while named(replica, "SHOW SLAVE STATUS", ["Master_Log_File", "Read_Master_Log_Pos"]) != wanted:
        need(time.monotonic() < deadline, "the replica does not receive what the source has")
        time.sleep(0.1)


class Readers:
    """What may read the source's binlog while it is written to: each by its name, switched on and off, level at both ends."""

    NAMES = ["nothing", "replica", "holdfast"]

    def __init__(self, source, site, replica):
        self.source, self.site, self.replica = source, site, replica
        self.agent_mib, self.agent_share = 0, []

    def start(self, name):
        if name == "replica":
            self.replica.sql("START SLAVE IO_THREAD")
            wait_until_received(self.replica, self.source)
        if name == "holdfast":
            self.site.start_agent()
            self.site.wait_until_level()
            self.cpu_before, self.started = processor_seconds(self.site.agent.pid), time.monotonic()
        time.sleep(1)

    def stop(self, name):
        if name == "replica":
            wait_until_received(self.replica, self.source)
            self.replica.sql("STOP SLAVE IO_THREAD")
        if name == "holdfast":
            cpu = processor_seconds(self.site.agent.pid) - self.cpu_before
            self.agent_share.append(cpu / (time.monotonic() - self.started))
            self.site.wait_until_level()
            self.agent_mib = max(self.agent_mib, self.site.stop_agent()[0])


def cost():
    sizes, found = bench.sizes, {mode: {name: [] for name in Readers.NAMES} for mode in ("durable", "relaxed")}
    with served(small_source(mariadb(), "source")) as source:
        site = Site("site", source)
        site.start_agent()
        site.wait_for_backup()
        site.stop_agent()
        with served(receiving_replica(source)) as replica:
            readers = Readers(source, site, replica)
            transactions_per_second(source)  # the first one warms up
            say("cost to the source, %d rounds of 6 times %d s" % (sizes.cost_rounds, sizes.cost_seconds))
            for number in range(sizes.cost_rounds):
                turn = number % len(Readers.NAMES)  # nobody always goes first
                for name in Readers.NAMES[turn:] + Readers.NAMES[:turn]:
                    readers.start(name)
                    found["durable"][name].append(transactions_per_second(source))
                    with relaxed(source):
                        found["relaxed"][name].append(transactions_per_second(source))
                    readers.stop(name)
                for mode, rates in found.items():
                    say("  %s: %s" % (mode, ", ".join("%s %.0f/s" % (name, rates[name][-1]) for name in Readers.NAMES)))
    shutil.rmtree(site.folder)
    return cost_page(found, statistics.median(readers.agent_share), readers.agent_mib)


# --- the page
def count(number):
    return "{:,}".format(number)


def table(*rows):
    rule = "|" + "---|" * len(rows[0])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], rule] + lines[1:]) + "\n"


def timed(result, ours, *more):
    """A line of a table of times. `more` are functions of the result for further columns."""
    if result.failure:
        return [result.name, "**failed**", "–"] + ["–"] * len(more)
    ratio = "–" if result is ours or not ours.seconds() else "%.2f" % (ours.seconds() / result.seconds())
    return [result.name, "%.1f" % result.seconds(), ratio] + [column(result) for column in more]


def failures(results):
    return "".join("\n%s failed: %s\n" % (result.name, result.failure) for result in results if result.failure)


def every_run(results):
    """All times, so that one can see how far they scatter."""
    runs = ["%s %s" % (result.name, ", ".join("%.1f" % measured.seconds for measured in result.runs)) for result in results if result.runs]
    return "\nAll rounds, in seconds: " + " · ".join(runs) + ".\n"


def mib(result):
    return "%.0f" % max(measured.mib for measured in result.runs)


def cpu(result):
    return "%.1f" % result.best().cpu


def megabytes(number):
    return "%.1f" % (number / 1e6)


def dump_page(results, data_bytes):
    ours = results[0]
    head = ["", "seconds", "ours ÷ its", "peak memory, MiB", "processor seconds", "stored, MB"]
    rows = [timed(result, ours, mib, cpu, lambda one: megabytes(one.facts["bytes"])) for result in results]
    text = "MariaDB, 4 sysbench tables of %s rows, %s MB with indexes. Two threads where there are threads. Best of %d.\n\n" % (
        count(bench.sizes.rows),
        megabytes(data_bytes),
        bench.sizes.dump_rounds,
    )
    notes = """
- Ours writes **two** complete encrypted copies and syncs each object to the disk before it counts; "stored" is one copy. The others
  write one, in clear, and leave it to the page cache.
- Ours also digests every row, and compresses at its default level. The zstd processes that mydumper starts are in its memory and processor time.
"""
    return "## Dump\n" + text + table(head, *rows) + notes + every_run(results) + failures(results)


def load_page(results):
    ours = results[0]
    rows = [timed(result, ours, mib) for result in results]
    text = "The same tables from the dumps above into a new MariaDB server without a binlog. Best of %d, the client once.\n\n" % bench.sizes.load_rounds
    notes = """
- The seconds are without making the server, which is %s s of our whole command and is not measured for the others, whose servers run with
  the options of ours.
- **Ours includes the comparison**: every row is read back from the new server and its digest compared with the source's. The others
  compare nothing. %s
- Memory is that of the programs, not of the servers.
"""
    facts = ours.facts
    order = ["structure", "load", "indexes", "programs", "compare"]
    parts = dict(sorted(facts.get("phases", {}).items(), key=lambda pair: order.index(pair[0]) if pair[0] in order else 99))
    made = "%.1f" % (facts["whole"] - sum(parts.values())) if parts else "–"
    said = "Its phases, in seconds: %s." % ", ".join("%s %.1f" % pair for pair in parts.items()) if parts else ""
    rivals = [result for result in results[1:] if result.seconds()]
    without = sum(parts.values()) - parts.get("compare", 0)
    if parts and rivals:
        shares = " and ".join("%.2f × %s" % (without / result.seconds(), result.name) for result in rivals)
        said += " Without the comparison it is %.1f s, %s." % (without, shares)
    head = ["", "seconds", "ours ÷ its", "peak memory, MiB"]
    return "## Load\n" + text + table(head, *rows) + notes % (made, said) + every_run(results) + failures(results)


def replay_page(kind, results, transactions, written):
    ours = results[0]
    rows = [timed(result, ours) for result in results]
    text = "%s: %s transactions of sysbench oltp_write_only, %s MB of binlog, on tables of %s rows. Best of %d, the client once.\n\n" % (
        kind.name,
        count(transactions),
        megabytes(written),
        count(bench.sizes.base_rows),
        bench.sizes.replay_rounds,
    )
    return "### %s\n" % kind.name + text + table(["", "seconds", "ours ÷ its"], *rows) + every_run(results) + failures(results)


REPLAY_NOTES = """
- All start from the same base in the same state: the same backup, restored into a new server with the same options, compared, still running.
- Ours is the phase `replay` of the whole restore: fetching, decrypting and checking the archive included, loading the base not.
- The replica reads from the source itself over loopback, which ours no longer has. It has as many workers, and the servers of all three have the
  settings that Holdfast gives its own: nothing is synced at commit, everything at the end, which all three figures include. Setting them is in
  ours only.
"""


def freshness_page(waits, written, objects, sync, peak, processor):
    row = ["%.2f" % value for value in (quantile(waits, 0.5), quantile(waits, 0.99), waits[-1])]
    text = "MariaDB, %.0f transactions a second for %d s, `holdfast run` with its default flush of 1 s and two folders as providers. " % (
        written,
        bench.sizes.freshness_seconds,
    )
    text += "Seconds from commit to durable in **both**.\n\n"
    notes = """
- Measured from outside, by %s marker transactions, ten a second. The time runs from just before a marker is sent to when the segment that
  holds it has its name in the later one of the two folders, which is after its bytes were synced (the file's ctime, up to 4 ms early). Not in it:
  the sync of the folder that follows; one took %.1f ms here.
- %d segments in each provider. `holdfast run` took %.0f MiB at most and %.1f s of processor, its first backup included.
"""
    return "## Freshness\n" + text + table(["p50", "p99", "most"], row) + notes % (count(len(waits)), sync * 1000, objects, peak, processor)


def cost_rows(rates):
    names = {"nothing": "nobody reads the binlog", "replica": "a replica receives it", "holdfast": "`holdfast run` archives it into two providers"}
    for name, those in rates.items():
        shares = [rate / alone for rate, alone in zip(those, rates["nothing"])]
        change = "–" if name == "nothing" else "%+.1f %%" % (100 * (statistics.median(shares) - 1))
        yield [names[name], "%.0f" % statistics.median(those), change, ", ".join("%.0f" % rate for rate in those)]


def cost_page(found, share, peak):
    head = ["", "transactions a second", "against nobody", "rounds"]
    text = "MariaDB, sysbench oltp_write_only at full load on %d connections. Medians of %d rounds of %d s, in turns; " % (
        WRITERS,
        bench.sizes.cost_rounds,
        bench.sizes.cost_seconds,
    )
    text += "the change is the median of each round's.\n"
    text += "\nDurable at every commit: the disk is the limit.\n\n" + table(head, *cost_rows(found["durable"]))
    text += "\nNot durable at commit: the processors are the limit.\n\n" + table(head, *cost_rows(found["relaxed"]))
    notes = """
- Source, sysbench and reader share the processors of this machine, so the reader's own work is in the figures: `holdfast run` took %.0f %% of one
  processor and %.0f MiB at most. The replica is another server on this machine that writes a relay log and applies nothing.
"""
    return "## Cost to the source\n" + text + notes % (100 * share, peak)


def machine():
    with open("/proc/cpuinfo") as file:
        model = re.search(r"model name\s*: (.*)", file.read())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    kind = run(["df", "--output=fstype", bench.folder]).split()[-1]
    name = model.group(1) if model else platform.machine()
    return "%d processors (%s), %.0f GiB of memory, Linux %s, %s" % (os.cpu_count(), name, memory, platform.release(), kind)


def page(parts, load_before):
    versions = ["%s %s" % (kind.name, kind.version()) for kind in (mariadb(), mysql())]
    versions += [run([bench.holdfast, "--version"]).strip(), "mydumper " + Mydumper().version, run(["sysbench", "--version"]).strip()]
    versions.append("zstd " + re.search(r"v([\d.]+)", run(["zstd", "--version"])).group(1))
    describe = ["git", "-C", PROJECT, "describe", "--always", "--dirty"]
    commit = subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip()
    started = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    head = """# Benchmarks
Written by `make bench`; do not edit. One machine does everything here: server, Holdfast, its peers, and the providers, which are folders on one
disk. Ratios of one run mean something on other machines; seconds do not.

%s · %s · load before the start %.2f, which should be near 0 · %s%s

""" % (started, machine(), load_before, " · ".join(versions), " · commit " + commit if commit else "")
    quick = "**A quick trial with small sizes: these figures mean nothing.**\n\n" if bench.quick else ""
    return head + quick + "\n".join(parts) + NOT_COMPARABLE


NOT_COMPARABLE = """
## What is not comparable
- The others' dumps are neither encrypted nor signed, are one copy, and say nothing about whether they are whole. To be fair to them, nothing
  was added to make up for that.
- Real providers are farther away than a folder. What a network costs is not measured here.
- The tables are sysbench's: short rows of random digits with one secondary index, on which zstd's level 1 is faster *and*
  smaller than level 3. Yours are others.
- Nothing was tuned for anybody but what is said above: defaults and two threads. Who has more processors should measure with them.
"""


# --- start and end
SIZES = {
    "rows": (1_000_000, 50_000),
    "dump_rounds": (3, 1),
    "load_rounds": (2, 1),
    "base_rows": (100_000, 10_000),
    "mariadb_transactions": (100_000, 5_000),
    "mysql_transactions": (40_000, 2_000),
    "replay_rounds": (2, 1),
    "freshness_seconds": (60, 8),
    "cost_rounds": (5, 2),
    "cost_seconds": (12, 2),
}


def read_sizes(quick):
    sizes = {name: int(os.environ.get("HOLDFAST_BENCH_" + name.upper(), both[quick])) for name, both in SIZES.items()}
    return argparse.Namespace(**sizes)


def measure_section(section):
    if section == "dump":
        return list(dump_and_load())
    if section == "freshness":
        return [freshness()]
    if section == "cost":
        return [cost()]
    kind, transactions = (mariadb(), bench.sizes.mariadb_transactions) if section == "replay-mariadb" else (mysql(), bench.sizes.mysql_transactions)
    return [replay(kind, transactions)]


def measure_all(sections):
    """The parts of the page, and whether anything failed."""
    parts, broken = [], False
    for section in sections:
        try:
            found = measure_section(section)
        except Failed as failure:
            say("%s FAILED: %s" % (section, failure))
            found = ["## %s\n**failed**: %s\n" % (section.capitalize(), failure)]
            end_everything()
        broken = broken or any("**failed**" in part for part in found)
        if section.startswith("replay"):
            first = not any(part.startswith("## Replay") for part in parts)
            found = (["## Replay\n" + REPLAY_NOTES.lstrip()] if first else []) + found
        parts += found
    return parts, broken


def end_everything():
    """Ends what still runs, each by its process id, and removes what it left."""
    for process in bench.started:
        if process.poll() is None and not any(process is server.child for server in Server.running):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
    bench.started.clear()
    for server in list(Server.running):
        server.kill()
    for name in os.listdir(bench.folder):
        path = os.path.join(bench.folder, name)
        if os.path.exists(os.path.join(path, "pid")):  # a restore that was cut off had a server
            Server(None, path).kill()
        shutil.rmtree(path, ignore_errors=True)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, to try things out")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, by comma: %s" % " ".join(SECTIONS))
    parser.add_argument("--out", help="the page to write")
    arguments = parser.parse_args()
    sections = arguments.only.split(",")
    unknown = set(sections) - set(SECTIONS)
    if unknown:
        parser.error("unknown section %s" % ", ".join(unknown))
    whole = not arguments.quick and sections == SECTIONS
    default = "docs/benchmarks.md" if whole else "target/benchmarks-quick.md" if arguments.quick else "target/benchmarks-part.md"
    return arguments.quick, sections, arguments.out or os.path.join(PROJECT, default)


def main():
    bench.quick, sections, out = parse_arguments()
    bench.sizes = read_sizes(bench.quick)
    bench.holdfast = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(PROJECT, "target")), "release/holdfast")
    need(os.access(bench.holdfast, os.X_OK), "no release build: run this by `make bench`")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of `finally`, which ends what runs
    load_before, started = os.getloadavg()[0], time.monotonic()
    bench.folder = tempfile.mkdtemp(prefix="hf-bench-", dir=os.environ.get("HOLDFAST_BENCH_FOLDER", "/tmp"))
    try:
        parts, broken = measure_all(sections)
        text = page(parts, load_before)
    finally:
        end_everything()
        shutil.rmtree(bench.folder, ignore_errors=True)
    os.makedirs(os.path.dirname(os.path.abspath(out)), exist_ok=True)
    with open(out, "w", encoding="utf-8") as file:
        file.write(text)
    say("wrote %s in %.0f s" % (os.path.relpath(out), time.monotonic() - started))
    return 1 if broken else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failed:
        sys.exit("bench: %s" % failed)
