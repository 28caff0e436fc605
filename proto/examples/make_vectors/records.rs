//! Signed records and key lines (§4), good and bad, with their verdicts.

use holdfast_proto::ids::RepositoryId;
use holdfast_proto::keys::{Certificate, Descriptor, Role};
use serde_json::{Value, json};

use super::world::World;

type Record = (&'static str, &'static str, &'static str, Vec<u8>);

/// Writes the records and returns their lines of the index.
pub(crate) fn write(world: &World) -> Vec<Value> {
    let records = descriptors(world).into_iter().chain(certificates(world));
    let line = |(name, what, verdict, bytes): Record| {
        world.write(&format!("records/{name}.json"), &bytes);
        json!({ "file": format!("records/{name}.json"), "what": what, "verdict": verdict })
    };
    records.map(line).collect()
}

fn descriptors(world: &World) -> Vec<Record> {
    let descriptor = world.descriptor();
    let with = |recipients| {
        Descriptor {
            recipients,
            ..descriptor.clone()
        }
        .sign(&world.root)
    };
    let alone = with(descriptor.recipients[..1].to_vec());
    let twice = with(vec![descriptor.recipients[0].clone(); 2]);
    let by_another = descriptor.sign(&world.agent_key);
    let signed = descriptor.sign(&world.root);
    let mut newer = signed.clone();
    newer.truncate(newer.len() - 2);
    newer.extend(b", \"more\": 1}\n");
    let cut = signed[..signed.len() / 2].to_vec();
    vec![
        ("descriptor", "descriptor", "good", signed),
        (
            "descriptor_by_another_key",
            "descriptor",
            "bad_signature",
            by_another,
        ),
        ("descriptor_one_recipient", "descriptor", "corrupt", alone),
        ("descriptor_recipient_twice", "descriptor", "corrupt", twice),
        ("descriptor_with_unknown_field", "descriptor", "corrupt", newer),
        ("descriptor_cut", "descriptor", "corrupt", cut),
    ]
}

fn certificates(world: &World) -> Vec<Record> {
    let certificate = world.certificate(&world.agent_key, Role::Agent);
    let signed = certificate.sign(&world.root);
    let by_another = certificate.sign(&world.agent_key);
    let edited = |from: &str, to: &str| {
        let text = String::from_utf8(signed.clone()).unwrap();
        assert!(text.contains(from), "{from} stands in {text}");
        text.replacen(from, to, 1).into_bytes()
    };
    let (role, name) = (edited("agent", "verifier"), edited("test", "tesu"));
    let foreign = Certificate {
        repository: RepositoryId([0x4f; 16]),
        ..certificate
    };
    let foreign = foreign.sign(&world.root);
    let descriptor = world.descriptor().sign(&world.root);
    vec![
        ("certificate", "certificate", "good", signed),
        (
            "certificate_by_another_key",
            "certificate",
            "bad_signature",
            by_another,
        ),
        (
            "certificate_of_other_repository",
            "certificate",
            "foreign_repository",
            foreign,
        ),
        ("certificate_role_changed", "certificate", "bad_signature", role),
        ("certificate_name_changed", "certificate", "bad_signature", name),
        ("descriptor_as_certificate", "certificate", "corrupt", descriptor),
    ]
}

/// Key lines with the kind that is asked for.
pub(crate) fn key_lines(world: &World) -> Vec<Value> {
    let recipient = world.recovery.recipient().to_line();
    let writer = world.agent_key.public().to_line();
    let last = recipient.chars().last().unwrap();
    let mistyped = format!(
        "{}{}",
        &recipient[..recipient.len() - 1],
        if last == '0' { '1' } else { '0' }
    );
    let (kind, rest) = recipient.split_once(':').unwrap();
    let line = |text: String, verdict: &str| json!({ "kind": kind, "text": text, "verdict": verdict });
    vec![
        line(recipient.clone(), "good"),
        line(format!("# a comment\n\n  {recipient}  \n"), "good"),
        line(String::new(), "corrupt"),
        line(format!("{recipient}\n{recipient}"), "corrupt"),
        line(mistyped, "corrupt"),
        line(format!("{kind}:{}", rest.to_uppercase()), "corrupt"),
        line(format!("{recipient}:"), "corrupt"),
        line(format!("holdfast-identity:{rest}"), "corrupt"),
        line(writer, "corrupt"),
    ]
}
