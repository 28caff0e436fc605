//! Objects that were damaged, lost or exchanged in a provider: another provider helps, and without one nothing is restored.

use std::fs;
use std::path::{Path, PathBuf};

use holdfast_tests::oracle::Snapshot;
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::{Site, write};

/// What happens to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    /// One bit of the byte at this fraction (hundredths) of its length is another.
    Flip(usize),
    Truncate,
    Remove,
    /// Another valid object, of the same kind and repository, stands in its place.
    Exchange,
}

const DAMAGES: [Damage; 5] = [
    Damage::Flip(2),
    Damage::Flip(90),
    Damage::Truncate,
    Damage::Remove,
    Damage::Exchange,
];

fn damage(object: &Path, other: &Path, damage: Damage) {
    let mut bytes = fs::read(object).unwrap();
    match damage {
        Damage::Flip(hundredths) => {
            let at = bytes.len() * hundredths / 100;
            bytes[at] ^= 0x10;
            write(object, &bytes);
        }
        Damage::Truncate => write(object, &bytes[..bytes.len() - 20]),
        Damage::Remove => fs::remove_file(object).unwrap(),
        Damage::Exchange => write(object, &fs::read(other).unwrap()),
    }
}

/// A source with two tables of equal size, and two backups of it.
struct Scene {
    source: Server,
    target: Server,
    site: Site,
    newest: String,
    /// A part and the manifest of the newest backup, each with one to exchange it for.
    objects: [(PathBuf, PathBuf); 2],
}

impl Scene {
    fn new() -> Scene {
        let start = || {
            Server::start(
                Kind::MariaDb1011,
                ServerOptions {
                    tcp: false,
                    ..ServerOptions::default()
                },
            )
        };
        let (source, target) = (start(), start());
        source.sql("CREATE DATABASE d; USE d; CREATE TABLE one (id INT PRIMARY KEY, a VARCHAR(200)); CREATE TABLE two LIKE one");
        source.sql("USE d; INSERT INTO one SELECT seq, SHA2(seq, 512) FROM seq_1_to_500; INSERT INTO two SELECT * FROM one");
        let site = Site::new(&source);
        let older = site.backup();
        source.sql("UPDATE d.one SET a = REVERSE(a)");
        let newest = site.backup().id;
        let of_newest = |paths: Vec<PathBuf>| -> (PathBuf, PathBuf) {
            let is_newest = |path: &&PathBuf| path.to_string_lossy().contains(&newest);
            let found = paths.iter().find(is_newest).unwrap().clone();
            let other = paths.iter().rfind(|path| **path != found).unwrap().clone();
            (found, other)
        };
        let parts: Vec<PathBuf> = site
            .parts("a")
            .into_iter()
            .filter(|p| !p.to_string_lossy().contains(&older.id))
            .collect();
        let objects = [of_newest(parts), of_newest(site.manifests("a"))];
        Scene {
            source,
            target,
            site,
            newest,
            objects,
        }
    }

    fn restore(&self) -> holdfast_tests::holdfast::Holdfast {
        let socket = self.target.socket().display().to_string();
        self.site.restore(
            &["a", "b"],
            &["--json", "--backup", &self.newest, "--socket", &socket],
        )
    }

    fn empty_target(&self) {
        self.target.sql("SET GLOBAL read_only=OFF; SET sql_log_bin=0; DROP DATABASE IF EXISTS d; DROP DATABASE IF EXISTS `holdfast-unfinished-restore`");
    }

    /// Does `damage` to an object in these providers, runs `check`, and undoes it.
    fn with(&self, providers: &[&str], object: &(PathBuf, PathBuf), done: Damage, check: impl FnOnce()) {
        let paths: Vec<PathBuf> = providers
            .iter()
            .map(|name| self.site.path(name).join(&object.0))
            .collect();
        let kept: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
        for (name, path) in providers.iter().zip(&paths) {
            damage(path, &self.site.path(name).join(&object.1), done);
        }
        check();
        paths
            .iter()
            .zip(&kept)
            .for_each(|(path, bytes)| write(path, bytes));
    }
}

#[test]
fn damage_in_one_provider_is_made_good_by_another_and_told() {
    let scene = Scene::new();
    let wanted = Snapshot::of(&scene.source);
    let provider = scene.site.shown("a");
    for (index, object) in scene.objects.iter().enumerate() {
        for done in DAMAGES {
            let case = format!("{done:?} of {}", object.0.display());
            scene.with(&["a"], object, done, || {
                let told = scene.restore().succeeds();
                wanted.assert_same(&Snapshot::of(&scene.target));
                if (index, done) == (1, Damage::Remove) {
                    // Without its manifest the provider does not claim to have the backup.
                    let list = scene.site.agent(&["list"]).succeeds();
                    assert!(list.stdout.contains("in b  NOT IN a"), "{case}: {list}");
                } else {
                    assert_eq!(told.json()["providers_failed"][&provider], 1, "{case}: {told}");
                    told.says(&["taken from another provider", &object.0.display().to_string()]);
                }
                scene.empty_target();
            });
        }
    }
}

#[test]
fn damage_in_every_provider_is_refused() {
    let scene = Scene::new();
    let before = Snapshot::of(&scene.target);
    let [part, manifest] = &scene.objects;
    let cases = [
        (part, Damage::Flip(2), 26),
        (part, Damage::Flip(90), 26),
        (part, Damage::Truncate, 26),
        (part, Damage::Remove, 25),
        (part, Damage::Exchange, 26),
        (manifest, Damage::Flip(2), 26),
        (manifest, Damage::Flip(90), 26),
        (manifest, Damage::Truncate, 26),
        (manifest, Damage::Remove, 24),
        (manifest, Damage::Exchange, 26),
    ];
    for (object, done, status) in cases {
        let case = format!("{done:?} of {}", object.0.display());
        scene.with(&["a", "b"], object, done, || {
            let told = scene.restore().fails();
            assert_eq!(told.status.code(), Some(status), "{case}: {told}");
            told.says(&[&format!("HF-E0{status}"), "HINT: "]);
            if status != 24 {
                told.says(&[&object.0.display().to_string()]);
            }
            let found = Snapshot::of(&scene.target);
            match before.differences(&found).is_empty() {
                // Found before the first change, as whatever shows without reading the parts.
                true => assert!(
                    status != 26 || !told.stderr.contains("half restored"),
                    "{case}: {told}"
                ),
                false => {
                    told.says(&["the target server is half restored and must not be used"]);
                    // It goes on, to the same object.
                    let again = scene.restore().fails();
                    assert_eq!(again.status.code(), Some(status), "{case}: {again}");
                }
            }
            scene.empty_target();
        });
    }
}

/// Without its manifest or with a bad one the newest backup is not replaced by an older one without a word.
#[test]
fn older_backup_is_not_taken_for_the_newest() {
    let scene = Scene::new();
    let socket = scene.target.socket().display().to_string();
    scene.with(&["a", "b"], &scene.objects[1], Damage::Flip(2), || {
        let told = scene.site.restore(&["a", "b"], &["--socket", &socket]).fails();
        assert_eq!(told.status.code(), Some(26), "{told}");
        told.says(&[&scene.newest, "HINT: ", "--backup ID"]);
        let list = scene.site.agent(&["list"]).succeeds();
        let is_listed = list
            .stdout
            .lines()
            .any(|line| line.starts_with(&scene.newest[..12]));
        assert!(list.stdout.contains("warning: ") && !is_listed, "{list}");
    });
}

/// A scratch server that could not be restored is marked, and the same command goes on when the object is whole again.
#[test]
fn unfinished_scratch_server_is_marked_and_goes_on() {
    let scene = Scene::new();
    let (scratch, prefix) = (
        scene.site.shown("scratch"),
        Kind::MariaDb1011.prefix().display().to_string(),
    );
    scene.with(&["a", "b"], &scene.objects[0], Damage::Flip(90), || {
        let told = scene
            .site
            .restore(&["a", "b"], &["--scratch", &scratch, "--server-prefix", &prefix])
            .fails();
        assert_eq!(told.status.code(), Some(26), "{told}");
        let folder = scene.site.path("scratch");
        assert!(
            folder.join("UNFINISHED-DO-NOT-USE").exists() && !folder.join("server.sock").exists(),
            "{told}"
        );
    });
    let told = scene.site.restore_to_scratch(&["a", "b"], "scratch", &[]);
    assert!(told.stderr.contains("goes on where it stopped"), "{told}");
    let restored = Server::over(
        Kind::MariaDb1011,
        &scene.site.path("scratch").join("data"),
        ServerOptions::default(),
    );
    Snapshot::of(&scene.source).assert_same(&Snapshot::of(&restored));
    // What can be seen without reading parts is seen before a server is made.
    scene.with(&["a", "b"], &scene.objects[0], Damage::Remove, || {
        let other = scene.site.shown("other");
        scene
            .site
            .restore(&["a", "b"], &["--scratch", &other, "--server-prefix", &prefix])
            .fails();
        assert!(!scene.site.path("other").exists());
    });
}

/// The loss of a whole provider, folder and all.
#[test]
fn either_provider_alone_is_enough() {
    let scene = Scene::new();
    let wanted = Snapshot::of(&scene.source);
    for lost in ["a", "b"] {
        let away = scene.site.path("away");
        fs::rename(scene.site.path(lost), &away).unwrap();
        let told = scene.restore().succeeds();
        told.says(&["warning: provider", "does not exist"]);
        wanted.assert_same(&Snapshot::of(&scene.target));
        scene.empty_target();
        fs::create_dir(scene.site.path(lost)).unwrap();
        scene.restore().succeeds();
        wanted.assert_same(&Snapshot::of(&scene.target));
        scene.empty_target();
        fs::remove_dir(scene.site.path(lost)).unwrap();
        fs::rename(&away, scene.site.path(lost)).unwrap();
    }
}
