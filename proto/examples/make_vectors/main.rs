//! Makes `proto/testdata` anew: `cargo run -p holdfast-proto --example make_vectors`.
//!
//! To be run when the format changes, and then only: what was made once must stay readable. Keys that are there are
//! kept. The vectors' verdicts are in `index.json`; `tests/vectors.rs` and `tests/reader` check them.

#![allow(clippy::unwrap_used, reason = "a generator that cannot go on stops")]

mod backup;
mod good;
mod header_defects;
mod payload_defects;
mod raw;
mod records;
mod world;

use holdfast_proto::keys::Role;
use serde_json::{Value, json};

use world::World;

/// One object and what a reader must make of it.
pub(crate) struct Vector {
    /// Named after the defect.
    pub(crate) name: &'static str,
    /// Where it must be refused: `header`, `open`, `plain` or `record`; empty for good ones.
    pub(crate) stage: &'static str,
    /// `good`, or the error of FORMAT.md §3.5.
    pub(crate) verdict: &'static str,
    pub(crate) bytes: Vec<u8>,
    /// What the reader asks for.
    pub(crate) ask: Value,
    /// With which identities.
    pub(crate) identities: &'static [&'static str],
    /// What comes out, of good ones.
    pub(crate) plain: Option<Vec<u8>>,
}

impl Vector {
    /// A defect of the part that most vectors are.
    pub(crate) fn bad(
        world: &World,
        name: &'static str,
        stage: &'static str,
        verdict: &'static str,
        bytes: Vec<u8>,
    ) -> Self {
        let ask = json!({ "name": world.part(3).to_string(), "kind": "part", "sequence": 3 });
        Self {
            name,
            stage,
            verdict,
            bytes,
            ask,
            identities: &["recovery"],
            plain: None,
        }
    }

    fn to_json(&self) -> Value {
        let mut line = json!({
            "file": format!("objects/{}.hf", self.name), "verdict": self.verdict,
            "ask": self.ask, "identities": self.identities,
        });
        match &self.plain {
            Some(plain) => line["plain_sha256"] = json!(holdfast_proto::ids::ObjectHash::of(plain)),
            None => line["stage"] = json!(self.stage),
        }
        line
    }
}

fn main() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let world = World::open(&folder);
    for made in ["objects", "records", "repository"] {
        let _ = std::fs::remove_dir_all(folder.join(made)); // not there the first time
    }
    let descriptor = world.descriptor().sign(&world.root);
    world.write("kit/repository.public", &descriptor);
    world.write("repository/repository", &descriptor);
    for (key, role) in [
        (&world.agent_key, Role::Agent),
        (&world.verifier_key, Role::Verifier),
    ] {
        let certificate = world.certificate(key, role);
        world.write(
            &format!("repository/certificates/{}", key.public().id()),
            &certificate.sign(&world.root),
        );
    }
    backup::write(&world);
    let mut vectors = good::vectors(&world);
    vectors.extend(header_defects::vectors(&world));
    vectors.extend(payload_defects::vectors(&world));
    for vector in &vectors {
        world.write(&format!("objects/{}.hf", vector.name), &vector.bytes);
    }
    let lines: Vec<Value> = vectors.iter().map(Vector::to_json).collect();
    let index = json!({
        "format": 0, "vectors": lines, "records": records::write(&world), "key_lines": records::key_lines(&world),
    });
    let mut text = serde_json::to_string_pretty(&index).unwrap();
    text.push('\n');
    world.write("index.json", text.as_bytes());
    println!("{} vectors in {}", vectors.len(), folder.display());
}
