//! Crashes and nonsense: processes killed in the middle of their work, providers that are away, a full spool, torn files.
//! Nothing is lost, nothing half done is taken for whole, and what comes back equals a real replica of the source.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use holdfast_tests::holdfast::Background;
use holdfast_tests::ledger;
use holdfast_tests::oracle::Snapshot;
use holdfast_tests::process::{Signal, wait_until};
use holdfast_tests::replica;
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::{self, Site};
use holdfast_tests::workload::{Commit, Workload};

use crate::moments::{MYSQL, Story, by, parted, restored_equals, restored_is};
use crate::restore::MEMORY_BYTES_MAX;
use crate::stream::{PATIENCE, busy, start, status, wait_for_manifests, wait_until_archived};

/// How long what was asked to end may take.
const END: Duration = Duration::from_secs(10);

/// 6 MB that cannot be compressed, so that there is a middle of a dump and of a load, and of making indexes afterwards.
const FILLER: &str =
    "CREATE TABLE shop.filler (id INT PRIMARY KEY, data VARBINARY(1000), INDEX (data), INDEX (data(10), id));
    INSERT INTO shop.filler WITH RECURSIVE n AS (SELECT 0 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 99)
      SELECT a.i * 100 + b.i, RANDOM_BYTES(1000) FROM n AS a JOIN n AS b WHERE a.i < 60;
    ANALYZE TABLE shop.filler";

/// Moments to strike at, from a seed that is printed; `HOLDFAST_SEED` brings the same ones again.
pub(crate) struct Moments(u64);

impl Moments {
    pub(crate) fn new() -> Moments {
        let given = std::env::var("HOLDFAST_SEED").ok();
        let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let seed = given.map_or_else(|| u64::from(now().subsec_nanos()), |text| text.parse().unwrap());
        eprintln!("the moments are those of HOLDFAST_SEED={seed}");
        Moments(seed)
    }

    /// From 0 to less than 1.
    fn share(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f64 / f64::from(1 << 24)
    }

    /// Waits for less than `limit`.
    fn wait(&mut self, limit: Duration) {
        std::thread::sleep(limit.mul_f64(self.share()));
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.share() * limit as f64) as usize
    }
}

/// A source with some bulk, and a host that archives it in many small segments and whose dumps take a while.
fn bulky(kind: Kind) -> (Server, Site) {
    let source = Server::start(kind, ServerOptions::default());
    Workload::prepare(&source);
    source.sql(FILLER);
    let site = Site::new(&source);
    configure(&site, "flush_interval = \"100ms\"");
    (source, site)
}

fn configure(site: &Site, binlog: &str) {
    let slow = site
        .configuration()
        .replace("[backup]", "[backup]\nzstd_level = 19");
    site.configure(&format!("{slow}\n[binlog]\n{binlog}\n"));
}

/// What is there once everything is archived and the agent has stopped in order.
fn story(source: Server, site: Site, mut agent: Background, commits: Vec<Commit>) -> Story {
    wait_until_archived(&site, &source, &["a", "b"]);
    assert!(agent.terminate(END * 3).success(), "{}", agent.output());
    let backup = site.listed().pop().unwrap();
    let (before, after) = parted(commits, &backup);
    assert!(after.len() >= 20, "{} transactions after the backup", after.len());
    let end = replica::now(&source);
    Story {
        source,
        site,
        backup,
        before,
        after,
        end,
    }
}

/// A bulky source that was written to while and after a backup was taken, and its whole archive.
pub(crate) fn archived(kind: Kind) -> Story {
    let (source, site) = bulky(kind);
    let agent = start(&site, "run.log");
    let workload = Workload::start(&source, &busy());
    wait_for_manifests(&site, "a", 1);
    wait_for_manifests(&site, "b", 1);
    workload.wait_for(250);
    let commits = workload.stop().commits;
    story(source, site, agent, commits)
}

/// A share of what was committed after the backup: how an operator asks for that point, and what a replica held there.
fn in_the_middle(story: &Story, percent: usize) -> (Vec<String>, Snapshot) {
    let commit = &story.after[story.after.len() * percent / 100];
    let (options, until) = by(commit);
    (options, Snapshot::of(&replica::stopped_at(&story.source, &until)))
}

pub(crate) fn borrowed(options: &[String]) -> Vec<&str> {
    options.iter().map(String::as_str).collect()
}

fn manifests(site: &Site) -> usize {
    ["a", "b"]
        .iter()
        .map(|provider| site.manifests(provider).len())
        .sum()
}

/// Starts the agent and kills it while its dump is under way: nothing is committed.
fn killed_in_its_dump(site: &Site, moments: &mut Moments, round: usize) {
    let mut agent = start(site, &format!("dump{round}.log"));
    agent.wait_for("snapshot opened", PATIENCE);
    moments.wait(Duration::from_millis(250));
    assert!(agent.is_running(), "{}", agent.output());
    agent.kill();
    assert_eq!(manifests(site), 0, "the dump was over:\n{}", agent.output());
}

/// The agent is killed in its dumps and while it streams, and the source is written to all the time.
fn every_kill_of_the_agent_is_survived(kind: Kind) {
    let mut moments = Moments::new();
    let (source, site) = bulky(kind);
    let workload = Workload::start(&source, &busy());
    (0..3).for_each(|round| killed_in_its_dump(&site, &mut moments, round));
    let mut agent = start(&site, "run.log");
    wait_for_manifests(&site, "a", 1);
    wait_for_manifests(&site, "b", 1);
    for round in 0..6 {
        moments.wait(Duration::from_millis(900));
        assert!(agent.is_running(), "{}", agent.output());
        agent.kill();
        if round % 3 == 1 {
            source.sql("FLUSH BINARY LOGS");
        }
        workload.wait_for(10);
        agent = start(&site, &format!("run{round}.log"));
    }
    workload.wait_for(40);
    let commits = workload.stop().commits;
    let story = story(source, site, agent, commits);
    let middle = [25, 75].map(|percent| in_the_middle(&story, percent));
    let end = Snapshot::of(&replica::stopped_at(&story.source, &story.end));
    for (nth, (options, wanted)) in middle.iter().enumerate() {
        let name = format!("middle{nth}");
        restored_is(&story, &["a", "b"], &name, &borrowed(options), wanted);
    }
    fs::remove_dir_all(story.site.path("a")).unwrap();
    for (nth, (options, wanted)) in middle.iter().enumerate() {
        let name = format!("middle{nth}-of-b");
        restored_is(&story, &["b"], &name, &borrowed(options), wanted);
    }
    restored_is(&story, &["b"], "end-of-b", &[], &end);
}

#[test]
fn every_kill_of_the_agent_is_survived_mariadb() {
    every_kill_of_the_agent_is_survived(Kind::MariaDb1011);
}

#[test]
fn every_kill_of_the_agent_is_survived_mysql() {
    every_kill_of_the_agent_is_survived(MYSQL);
}

const MARK: &str = "UNFINISHED-DO-NOT-USE";

/// Whether a part of the filler's rows is in the data folder `data`.
pub(crate) fn is_loading(data: &Path) -> bool {
    fs::metadata(data.join("shop/filler.ibd")).is_ok_and(|file| file.len() > 1 << 20)
}

/// Whether a server over `data` has received some of the binlog that it is to replay.
fn is_replaying(data: &Path) -> bool {
    let entries = fs::read_dir(data).into_iter().flatten().flatten();
    let is_relay_log =
        |name: String| name.contains("relay") && name.ends_with(|last: char| last.is_ascii_digit());
    entries
        .filter(|entry| is_relay_log(entry.file_name().to_string_lossy().into_owned()))
        .any(|entry| entry.metadata().is_ok_and(|file| file.len() > 16 << 10))
}

/// Whether a process is there and has not ended; who reaps an orphan, and when, is up to the system.
fn is_alive(id: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !"ZX".contains(state))
}

/// The server that a restore made in `scratch`.
fn server_of(scratch: &Path) -> i32 {
    let text = fs::read_to_string(scratch.join("pid")).unwrap();
    text.trim().parse().unwrap()
}

/// A process that is not our child, stopped. It is killed when this is dropped, should it be there still.
struct Frozen(i32);

impl Frozen {
    fn new(id: i32) -> Frozen {
        let frozen = Frozen(id);
        frozen.signal(Signal::STOP);
        frozen
    }

    fn signal(&self, signal: Signal) {
        let id = rustix::process::Pid::from_raw(self.0).unwrap();
        rustix::process::kill_process(id, signal).unwrap();
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if is_alive(self.0) {
            self.signal(Signal::KILL);
        }
    }
}

/// Waits for the middle of a restore; panics where it ends before. Polls fast: the middle is short.
pub(crate) fn wait_for_the_middle(restore: &mut Background, mut is_there: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !is_there() {
        assert!(restore.is_running(), "it was too quick:\n{}", restore.output());
        assert!(started.elapsed() < PATIENCE, "{}", restore.output());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Kills a restore into a new server when `is_there` says so of the data folder: the server ends with it, and is marked.
/// `then`: what becomes of the server, which is frozen meanwhile: it crashes as well (KILL), or goes on (CONT) and is stopped in order.
fn kill_restore(story: &Story, name: &str, is_there: fn(&Path) -> bool, then: Signal) -> Vec<String> {
    let site = &story.site;
    let prefix = story.source.kind().prefix().display().to_string();
    let to = [
        "--scratch",
        &site.shown(name),
        "--server-prefix",
        &prefix,
        "--stop",
    ]
    .map(str::to_owned);
    let mut restore = site
        .restore(&["a", "b"], &borrowed(&to))
        .start(&site.path("restore.log"));
    let folder = site.path(name);
    wait_for_the_middle(&mut restore, || is_there(&folder.join("data")));
    let server = Frozen::new(server_of(&folder));
    assert!(restore.is_running(), "it was too quick:\n{}", restore.output());
    restore.kill();
    server.signal(then);
    wait_until("the server ends with its restore", END, || !is_alive(server.0));
    assert!(
        folder.join(MARK).exists(),
        "nothing says that {name} is half restored"
    );
    to.to_vec()
}

/// The same command goes on with a restore that was killed, and no other one does.
fn killed_restore_goes_on(story: &Story, name: &str, is_there: fn(&Path) -> bool, then: Signal) {
    let site = &story.site;
    let to = kill_restore(story, name, is_there, then);
    let other = [&borrowed(&to)[..], &["--accounts", "leave"]].concat();
    let refused = site.restore(&["a", "b"], &other).fails();
    assert_eq!(refused.status.code(), Some(40), "{refused}");
    refused.says(&["HF-E040", &story.backup.id, "something else"]);
    let told = restored_equals(story, name, &[], &story.end);
    assert!(
        told.json()["target_warnings"]
            .to_string()
            .contains("went on where"),
        "{told}"
    );
    assert!(!site.path(name).join(MARK).exists(), "{told}");
    let again = site.restore(&["a", "b"], &borrowed(&to)).fails();
    again.says(&["HF-E040", "is not empty", "name a new folder"]);
}

/// Where transactions have no names nobody knows which ones a server has that was killed while it replayed them.
#[test]
fn a_killed_replay_without_gtids_is_not_gone_on_with_mysql() {
    let story = archived(Kind::MySql97 { gtid: false });
    let to = kill_restore(&story, "replaying", is_replaying, Signal::KILL);
    let refused = story.site.restore(&["a", "b"], &borrowed(&to)).fails();
    assert_eq!(refused.status.code(), Some(40), "{refused}");
    refused.says(&["HF-E040", "without GTIDs", "--scratch DIR"]);
}

/// A restore that is killed leaves no server behind that looks whole, and the same command goes on to what was wanted.
fn a_killed_restore_goes_on(kind: Kind) {
    let story = archived(kind);
    killed_restore_goes_on(&story, "loading", is_loading, Signal::KILL);
    killed_restore_goes_on(&story, "replaying", is_replaying, Signal::KILL);
    killed_restore_goes_on(&story, "stopped", is_replaying, Signal::CONT);
    // Into a server that runs, killed again and again.
    let target = Server::start(
        kind,
        ServerOptions {
            tcp: false,
            ..ServerOptions::default()
        },
    );
    let socket = target.socket().display().to_string();
    let to = ["--socket", &socket];
    let restore = |more: &[&str]| story.site.restore(&["a", "b"], &[&to[..], more].concat());
    // To an earlier point first: it may be moved on.
    let (earlier, _) = by(&story.after[story.after.len() * 9 / 10]);
    for is_there in [is_loading, is_replaying] {
        let mut running = restore(&borrowed(&earlier)).start(&story.site.path("into.log"));
        wait_for_the_middle(&mut running, || is_there(&target.data_folder()));
        target.signal(Signal::STOP);
        assert!(running.is_running(), "it was too quick:\n{}", running.output());
        running.kill();
        target.signal(Signal::CONT);
    }
    let back = restore(&["--backup", &story.backup.id, "--backup-only"]).fails();
    back.says(&["HF-E040", "binlogs are replayed on it", "HINT:"]);
    let mut session = target.session();
    session.run("SELECT 1").unwrap();
    restore(&[])
        .fails()
        .says(&["HF-E040", "not empty", "(connection"]);
    drop(session);
    restore(&[]).succeeds();
    ledger::check(&target);
    let oracle = Snapshot::of(&replica::stopped_at(&story.source, &story.end));
    oracle.assert_same(&Snapshot::of(&target));
    let left = target.query(
        "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE 'holdfast%' \
         UNION SELECT User FROM mysql.user WHERE User LIKE 'holdfast%'",
    );
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_killed_restore_goes_on_mariadb() {
    a_killed_restore_goes_on(Kind::MariaDb1011);
}

#[test]
fn a_killed_restore_goes_on_mysql() {
    a_killed_restore_goes_on(MYSQL);
}

/// Both the service and a single backup stop in their dump when they are asked to, and commit nothing.
fn sigterm_in_a_dump_commits_nothing(kind: Kind) {
    let (_source, site) = bulky(kind);
    let mut agent = start(&site, "run.log");
    agent.wait_for("snapshot opened", PATIENCE);
    assert!(agent.terminate(END).success(), "{}", agent.output());
    assert_eq!(manifests(&site), 0, "the dump was over:\n{}", agent.output());
    let mut backup = site
        .agent(&["--log", "info", "backup"])
        .start(&site.path("backup.log"));
    backup.wait_for("snapshot opened", PATIENCE);
    let ended = backup.terminate(END);
    assert_eq!(ended.code(), Some(70), "{}", backup.output());
    for part in ["HF-E070", "SIGTERM", "holdfast list"] {
        assert!(backup.output().contains(part), "{part} in {}", backup.output());
    }
    assert_eq!(manifests(&site), 0, "the dump was over:\n{}", backup.output());
    assert!(site.listed().is_empty());
    let taken = site.backup();
    let listed: Vec<String> = site.listed().into_iter().map(|backup| backup.id).collect();
    assert_eq!(listed, [taken.id]);
}

#[test]
fn sigterm_in_a_dump_commits_nothing_mariadb() {
    sigterm_in_a_dump_commits_nothing(Kind::MariaDb1011);
}

#[test]
fn sigterm_in_a_dump_commits_nothing_mysql() {
    sigterm_in_a_dump_commits_nothing(MYSQL);
}

/// Providers that can be read and take no segments, as where a disk is full, until this is lifted.
struct Blockade {
    /// Where segments go, and where they are meanwhile.
    folders: Vec<(PathBuf, PathBuf)>,
}

impl Blockade {
    /// There must be a cluster in each provider.
    fn of(site: &Site, providers: &[&str]) -> Blockade {
        let mut folders = Vec::new();
        for provider in providers {
            let clusters = fs::read_dir(site.path(provider).join("clusters")).unwrap();
            let cluster = clusters.flatten().next().unwrap().path();
            for level in ["small", "large"] {
                let (place, aside) = (cluster.join(level), site.path(&format!("{provider}-{level}")));
                if place.exists() {
                    fs::rename(&place, &aside).unwrap();
                }
                // No folder can be made where a file is.
                site::write(&place, b"");
                folders.push((place, aside));
            }
        }
        Blockade { folders }
    }

    fn lift(self) {
        for (place, aside) in self.folders {
            fs::remove_file(&place).unwrap();
            if aside.exists() {
                fs::rename(&aside, &place).unwrap();
            }
        }
    }
}

/// What the spool really takes of the disk.
fn spool_bytes(site: &Site) -> u64 {
    let entries = fs::read_dir(site.path("state/spool"))
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter_map(|entry| Some(entry.metadata().ok()?.len()))
        .sum()
}

fn assert_memory_is_bounded(agent: &Background) {
    let peak = agent.peak_memory_bytes().unwrap();
    eprintln!("the agent took {} MiB at most", peak >> 20);
    assert!(peak < MEMORY_BYTES_MAX, "the agent took {} MiB", peak >> 20);
}

fn assert_is_full(site: &Site, agent: &Background) {
    let told = site.agent(&["status", "--json"]).fails();
    let line = told.stdout.lines().next().unwrap_or_default();
    let status: serde_json::Value = serde_json::from_str(line).unwrap();
    let alarms = status["alarms"].to_string();
    for part in [
        "the spool is full",
        "provider a takes nothing",
        "provider b takes nothing",
    ] {
        assert!(alarms.contains(part), "{part} is no alarm: {alarms}");
    }
    assert_eq!(status["pid"].as_u64(), Some(u64::from(agent.id())), "{status}");
    let (used, limit) = (spool_bytes(site), 64 << 20);
    assert!(used <= limit, "the spool takes {} MiB", used >> 20);
    assert_memory_is_bounded(agent);
}

fn wait_until_full(site: &Site, agent: &mut Background) {
    let id = u64::from(agent.id());
    wait_until("the spool is full", PATIENCE, || {
        assert!(agent.is_running(), "{}", agent.output());
        status(site)
            .is_some_and(|status| status["spool"]["full"] == true && status["pid"].as_u64() == Some(id))
    });
}

/// 8 MiB that cannot be compressed, as a file that the server can read.
fn noise(source: &Server) -> PathBuf {
    let mut state = 7_u64;
    let bytes = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33).to_le_bytes()[0]
    });
    let file = source.folder().join("noise");
    fs::write(&file, bytes.take(8 << 20).collect::<Vec<u8>>()).unwrap();
    file
}

/// An agent whose allocator gives large buffers back to the system. glibc's own way is to keep what was freed in every thread's
/// arena: measured, the same work took 268 MiB at most instead of 122.
fn start_frugal(site: &Site, log: &str) -> Background {
    site.agent(&["--log", "info", "run"])
        .env("MALLOC_MMAP_THRESHOLD_", "131072")
        .start(&site.path(log))
}

/// No provider takes anything until the spool is full, and the agent is killed on top: the source goes on, memory and disk are
/// bounded, and when the providers are back nothing is missing.
#[test]
fn a_full_spool_holds_up_nobody() {
    let source = Server::start(Kind::MariaDb1011, ServerOptions::default());
    Workload::prepare(&source);
    source.sql("CREATE TABLE shop.noise (id INT AUTO_INCREMENT PRIMARY KEY, data LONGBLOB)");
    let site = Site::new(&source);
    configure(&site, "spool = \"64 MiB\"");
    let mut agent = start_frugal(&site, "run.log");
    wait_for_manifests(&site, "a", 1);
    wait_for_manifests(&site, "b", 1);
    wait_until_archived(&site, &source, &["a", "b"]);
    let blockade = Blockade::of(&site, &["a", "b"]);
    let workload = Workload::start(&source, &busy());
    let more = format!(
        "INSERT INTO shop.noise (data) VALUES (LOAD_FILE('{}'))",
        noise(&source).display()
    );
    (0..7).for_each(|_| source.sql(&more));
    wait_until_full(&site, &mut agent);
    workload.wait_for(20);
    assert_is_full(&site, &agent);
    agent.kill();
    let mut agent = start_frugal(&site, "again.log");
    wait_until_full(&site, &mut agent);
    workload.wait_for(20);
    assert_is_full(&site, &agent);
    let commits = workload.stop().commits;
    blockade.lift();
    let wanted = replica::now(&source);
    wait_until_archived(&site, &source, &["a", "b"]);
    wait_until("all is well again", PATIENCE, || {
        site.agent(&["status"]).run().status.success()
    });
    assert_eq!(replica::now(&source), wanted);
    assert_memory_is_bounded(&agent);
    let story = story(source, site, agent, commits);
    let (options, middle) = in_the_middle(&story, 50);
    restored_is(&story, &["a"], "middle", &borrowed(&options), &middle);
    restored_is(&story, &["b"], "end", &[], &Snapshot::of(&story.source));
}

/// The provider that is asked first is away when the agent starts, even twice; when it is back it gets everything, and what is
/// restored from it alone is exact.
#[test]
fn a_start_without_a_provider_is_made_good() {
    let (source, site) = bulky(MYSQL);
    fs::rename(site.path("a"), site.path("a-away")).unwrap();
    let workload = Workload::start(&source, &busy());
    let mut agent = start(&site, "run.log");
    wait_for_manifests(&site, "b", 1);
    workload.wait_for(40);
    wait_until("the missing provider is an alarm", PATIENCE, || {
        let alarms = status(&site).map(|status| status["alarms"].to_string());
        alarms.is_some_and(|alarms| {
            alarms.contains("provider a takes nothing") && !alarms.contains("provider b")
        })
    });
    agent.kill();
    let agent_again = start(&site, "again.log");
    workload.wait_for(40);
    wait_until("the other one goes on", PATIENCE, || {
        status(&site).is_some_and(|status| status["providers"][1]["durable"]["file"].is_string())
    });
    fs::rename(site.path("a-away"), site.path("a")).unwrap();
    workload.wait_for(40);
    let commits = workload.stop().commits;
    // The backup as well, without a restart.
    wait_for_manifests(&site, "a", 1);
    let story = story(source, site, agent_again, commits);
    fs::remove_dir_all(story.site.path("b")).unwrap();
    let (options, middle) = in_the_middle(&story, 50);
    restored_is(&story, &["a"], "middle", &borrowed(&options), &middle);
    restored_is(&story, &["a"], "end", &[], &Snapshot::of(&story.source));
}

/// One entry of a spool that nothing could leave is torn while the agent is dead: it is discarded, and read again from the source.
fn a_torn_spool_entry_is_read_again(kind: Kind, which: fn(&[PathBuf]) -> &Path) {
    let (source, site) = bulky(kind);
    let workload = Workload::start(&source, &busy());
    let mut agent = start(&site, "run.log");
    wait_for_manifests(&site, "a", 1);
    wait_for_manifests(&site, "b", 1);
    workload.wait_for(30);
    let blockade = Blockade::of(&site, &["a", "b"]);
    let before = workload.committed();
    workload.wait_for(60);
    let entries = || {
        let entries = fs::read_dir(site.path("state/spool")).unwrap().flatten();
        let is_whole = |path: &PathBuf| !path.file_name().unwrap().to_string_lossy().starts_with('.');
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_whole).collect();
        paths.sort();
        paths
    };
    wait_until("segments pile up", PATIENCE, || entries().len() >= 4);
    agent.kill();
    let torn = entries();
    let torn = fs::File::options().write(true).open(which(&torn)).unwrap();
    torn.set_len(torn.metadata().unwrap().len() / 2).unwrap();
    blockade.lift();
    let mut agent = start(&site, "again.log");
    agent.wait_for("discarded 1 torn spool entries", PATIENCE);
    workload.wait_for(30);
    let commits = workload.stop().commits;
    assert!(before > 0 && commits.len() > before + 60);
    let story = story(source, site, agent, commits);
    assert_eq!(story.site.listed().len(), 1, "it is not healed by another backup");
    for percent in [50, 95] {
        let (options, middle) = in_the_middle(&story, percent);
        restored_is(
            &story,
            &["b", "a"],
            &format!("at{percent}"),
            &borrowed(&options),
            &middle,
        );
    }
    restored_is(&story, &["b"], "end", &[], &Snapshot::of(&story.source));
}

#[test]
fn a_torn_spool_entry_is_read_again_mariadb() {
    a_torn_spool_entry_is_read_again(Kind::MariaDb1011, |entries| &entries[1]);
}

#[test]
fn a_torn_spool_entry_is_read_again_mysql() {
    a_torn_spool_entry_is_read_again(MYSQL, |entries| entries.last().unwrap());
}

/// A host that lost where it was archives again from the newest backup's binlog file on. The latest moment is then the latest of
/// all that is archived, not of what was archived before.
#[test]
fn a_lost_cursor_loses_nothing() {
    let source = Server::start(Kind::MariaDb1011, ServerOptions::default());
    Workload::prepare(&source);
    let site = Site::new(&source);
    let workload = Workload::start(&source, &busy());
    let mut agent = start(&site, "run.log");
    wait_for_manifests(&site, "a", 1);
    wait_for_manifests(&site, "b", 1);
    workload.wait_for(40);
    source.sql("FLUSH BINARY LOGS");
    workload.wait_for(40);
    assert!(agent.terminate(END * 3).success(), "{}", agent.output());
    fs::remove_file(site.path("state/cursor.json")).unwrap();
    let agent = start(&site, "again.log");
    workload.wait_for(40);
    let commits = workload.stop().commits;
    let story = story(source, site, agent, commits);
    assert_eq!(story.site.listed().len(), 1, "it is not healed by another backup");
    let (options, middle) = in_the_middle(&story, 50);
    restored_is(&story, &["a"], "middle", &borrowed(&options), &middle);
    restored_is(&story, &["b"], "end", &[], &Snapshot::of(&story.source));
}
