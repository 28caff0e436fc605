//! Two small whole backups as a provider holds them: one with a row that spans parts, one whose manifest has pages.

use holdfast_proto::container::{Codec, Kind, Summary, seal};
use holdfast_proto::digest::{DigestSecret, RECIPE, RowDigest, RowHasher};
use holdfast_proto::flavour::Flavour;
use holdfast_proto::ids::{BackupId, ObjectHash};
use holdfast_proto::manifest::{Coordinates, Manifest, Pages, Part, Source, TableRows};
use holdfast_proto::names::{Day, ObjectName};
use holdfast_proto::record::Record as _;
use serde_json::json;

use super::world::{BACKUP, CREATED_MS, World};

const IN_PAGES: BackupId = BackupId([0xb1; 16]);

type Cell<'a> = Option<&'a [u8]>;

pub(crate) fn manifest_name(world: &World, backup: BackupId) -> ObjectName {
    ObjectName::Manifest {
        cluster: world.cluster(),
        day: Day::of(CREATED_MS),
        backup,
    }
}

pub(crate) fn write(world: &World) {
    let secret = DigestSecret::generate();
    let whole = Backup {
        world,
        backup: BACKUP,
    };
    let manifest = whole.dump(&secret);
    whole.put(
        manifest_name(world, BACKUP),
        Kind::Manifest,
        0,
        &manifest.encode(),
        manifest.summary().encode(),
    );
    let paged = Backup {
        world,
        backup: IN_PAGES,
    };
    let manifest = paged.dump(&secret);
    paged.commit_in_pages(&manifest);
}

struct Backup<'a> {
    world: &'a World,
    backup: BackupId,
}

impl Backup<'_> {
    fn put(
        &self,
        name: ObjectName,
        kind: Kind,
        sequence: u64,
        plain: &[u8],
        summary: Vec<u8>,
    ) -> (ObjectHash, u64) {
        let mut core = self.world.core(name, kind, sequence, Codec::Zstd, plain.len());
        core.chain = self.backup.0;
        core.summary = Summary(summary);
        let payload = zstd::bulk::compress(plain, 3).unwrap();
        let sealed = seal(&core, &payload, &self.world.sealer("agent"));
        self.world
            .write(&format!("repository/{}", sealed.name), &sealed.bytes);
        (sealed.hash, sealed.bytes.len() as u64)
    }

    fn part(&self, sequence: u64, table: u32, text: &[u8], digest: RowDigest, continues: bool) -> Part {
        let (cluster, day) = (self.world.cluster(), Day::of(CREATED_MS));
        let name = ObjectName::Part {
            cluster,
            day,
            backup: self.backup,
            sequence,
        };
        let (hash, stored_bytes) = self.put(name, Kind::Part, sequence, text, Vec::new());
        Part {
            sequence,
            table,
            hash,
            stored_bytes,
            plain_bytes: text.len() as u64,
            digest,
            continues,
        }
    }

    /// Three tables: one of two parts, one with a row that spans two parts, one without rows.
    fn dump(&self, secret: &DigestSecret) -> Manifest {
        let first: [&[Cell<'_>]; 2] = [
            &[Some(b"1"), None, Some(b"")],
            &[Some(b"2"), Some(b"a\tb\\c\nd\0e\rf"), Some(b"\\N")],
        ];
        let second: [&[Cell<'_>]; 1] = [&[Some(b"3"), Some(&[0xff, 0x00, 0xc3, 0x28]), None]];
        let long: [&[Cell<'_>]; 2] = [&[Some(b"spans two parts")], &[Some(b"follows it")]];
        let (one, one_sum) = rows(secret, &first);
        let (two, two_sum) = rows(secret, &second);
        let (text, long_sum) = rows(secret, &long);
        let (begin, end) = text.split_at(7);
        let parts = vec![
            self.part(4, 0, &two, two_sum, false),
            self.part(1, 1, begin, RowDigest::default(), true),
            self.part(7, 1, end, long_sum, false),
            self.part(0, 0, &one, one_sum, false),
        ];
        let mut first_sum = one_sum;
        first_sum.merge(&two_sum);
        let table = |name: &str, digest| TableRows {
            schema: "shop".into(),
            name: name.into(),
            digest,
            generated: None,
            history: vec![],
        };
        let tables = vec![
            table("orders", first_sum),
            table("notes", long_sum),
            table("empty", RowDigest::default()),
        ];
        let manifest = self.manifest(secret, tables, parts);
        manifest.validate().unwrap();
        manifest
    }

    fn manifest(&self, secret: &DigestSecret, tables: Vec<TableRows>, parts: Vec<Part>) -> Manifest {
        Manifest {
            crit: Vec::new(),
            backup: self.backup,
            cluster: "shop".into(),
            host: "db1".into(),
            tool: "0.1.0".into(),
            started_ms: CREATED_MS,
            finished_ms: CREATED_MS + 1000,
            taken_ms: 0,
            source: Source {
                flavour: Flavour::MariaDb,
                version: "10.11.11-MariaDB-log".into(),
                server_id: 1,
                server_uuid: String::new(),
            },
            position: Coordinates {
                file: "binlog.000042".into(),
                offset: 480,
                gtid: "0-1-99".into(),
            },
            recipe: RECIPE.into(),
            secret: secret.clone(),
            definitions: json!({ "schemas": [], "tables": [] }),
            tables,
            parts,
            exceptions: Vec::new(),
        }
    }

    fn commit_in_pages(&self, manifest: &Manifest) {
        let (cluster, day, plain) = (self.world.cluster(), Day::of(CREATED_MS), manifest.encode());
        let mut pages = Vec::new();
        for (page, sequence) in plain.chunks(600).zip(0u64..) {
            let name = ObjectName::ManifestPage {
                cluster,
                day,
                backup: self.backup,
                sequence,
            };
            pages.push(self.put(name, Kind::ManifestPage, sequence, page, Vec::new()).0);
        }
        let index = Pages {
            pages,
            plain_bytes: plain.len() as u64,
        }
        .encode();
        self.put(
            manifest_name(self.world, self.backup),
            Kind::Manifest,
            0,
            &index,
            manifest.summary().encode(),
        );
    }
}

/// Rows as the text of parts (§6.2), and their digest (§6.3).
fn rows(secret: &DigestSecret, rows: &[&[Cell<'_>]]) -> (Vec<u8>, RowDigest) {
    let mut hasher = RowHasher::new(secret);
    let mut lines = Vec::new();
    for row in rows {
        let mut cells = Vec::new();
        for cell in *row {
            match cell {
                None => {
                    hasher.null();
                    cells.push(b"\\N".to_vec());
                }
                Some(bytes) => {
                    hasher.cell(u32::try_from(bytes.len()).unwrap());
                    hasher.data(bytes);
                    cells.push(escaped(bytes));
                }
            }
        }
        hasher.row_end();
        lines.push(cells.join(&b'\t'));
    }
    let text = lines
        .into_iter()
        .flat_map(|line| [line, b"\n".to_vec()].concat())
        .collect();
    (text, hasher.take())
}

fn escaped(bytes: &[u8]) -> Vec<u8> {
    let escape = |byte: &u8| match byte {
        b'\\' => b"\\\\".to_vec(),
        b'\t' => b"\\t".to_vec(),
        b'\n' => b"\\n".to_vec(),
        b'\r' => b"\\r".to_vec(),
        0 => b"\\0".to_vec(),
        other => vec![*other],
    };
    bytes.iter().flat_map(escape).collect()
}
