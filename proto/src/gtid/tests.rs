//! GTID sets against a naive model, and their spellings.

#![allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::*;

const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
const B: &str = "b0000000-0000-0000-0000-00000000000b";

fn set(text: &str) -> MySqlGtidSet {
    text.parse().unwrap()
}

/// A small reproducible generator, so that a failure repeats.
struct Seed(u64);

impl Seed {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

type Model = BTreeSet<(u8, &'static str, u64)>;

fn gtid(&(uuid, tag, number): &(u8, &'static str, u64)) -> MySqlGtid {
    let source = MySqlSource {
        uuid: Uuid([uuid; 16]),
        tag: Tag::new(tag).unwrap(),
    };
    MySqlGtid { source, number }
}

/// A random set as a model, and the same inserted one by one.
fn random(seed: &mut Seed) -> (Model, MySqlGtidSet) {
    let mut model = Model::new();
    let mut real = MySqlGtidSet::default();
    for _ in 0..seed.below(60) {
        let tag = ["", "a", "zeta"][seed.below(3) as usize];
        let item = (seed.below(2) as u8, tag, seed.below(25) + 1);
        assert_eq!(real.insert(&gtid(&item)).unwrap(), model.insert(item));
    }
    (model, real)
}

fn same(model: &Model, real: &MySqlGtidSet) {
    let mut rebuilt = MySqlGtidSet::default();
    for item in model {
        assert!(real.contains(&gtid(item)), "{item:?} is missing in {real}");
        rebuilt.insert(&gtid(item)).unwrap();
    }
    assert_eq!(real, &rebuilt);
    assert_eq!(real.transaction_count(), model.len() as u128);
    assert_eq!(
        &real.to_string().parse::<MySqlGtidSet>().unwrap(),
        real,
        "text round trip"
    );
    assert_eq!(
        &MySqlGtidSet::decode(&real.encode()).unwrap(),
        real,
        "bytes round trip"
    );
}

#[test]
fn mysql_sets_agree_with_a_naive_model() {
    let mut seed = Seed(29);
    for _ in 0..3000 {
        let ((m1, r1), (m2, r2)) = (random(&mut seed), random(&mut seed));
        same(&m1, &r1);
        same(&m1.union(&m2).cloned().collect(), &r1.union(&r2));
        same(&m1.intersection(&m2).cloned().collect(), &r1.intersect(&r2));
        same(&m1.difference(&m2).cloned().collect(), &r1.subtract(&r2));
        assert_eq!(m1.is_subset(&m2), r1.is_subset(&r2));
        assert!(r1.intersect(&r2).is_subset(&r1));
        assert!(r1.is_subset(&r1.union(&r2)));
    }
}

#[test]
fn mysql_text_is_read_as_servers_print_it_and_printed_canonically() {
    let printed = format!(
        "{}:1-3:5:6-9,\n{B}:1:Beta:2-4:7:alpha:1,\n{A}:4",
        A.to_uppercase()
    );
    assert_eq!(
        set(&printed).to_string(),
        format!("{A}:1-9,{B}:1:alpha:1:beta:2-4:7")
    );
    assert_eq!(set(" \n ").to_string(), "");
    assert_eq!(set(&format!("{A} : 1 - 3 : 7")).to_string(), format!("{A}:1-3:7"));
    assert_eq!(set(&format!("{A}:{GNO_MAX}")).transaction_count(), 1);
}

#[test]
fn mysql_text_that_is_not_a_set_is_refused() {
    let long_tag = "t".repeat(33);
    for bad in [
        A.to_string(),
        format!("{A}:"),
        format!("{A}:0"),
        format!("{A}:5-4"),
        format!("{A}:1-"),
        format!("{A}:-1"),
        format!("{A}:+1"),
        format!("{A}:1,"),
        format!("{A}:1,,{B}:1"),
        format!("{A}:tag"),
        format!("{A}:tag:"),
        format!("{A}:1:tag"),
        format!("{A}:tag-x:1"),
        format!("{A}:{long_tag}:1"),
        format!("{A}::1"),
        format!("{A}:9223372036854775807"),
        format!("{A}:99999999999999999999"),
        format!("{}:1", &A[1..]),
        format!("{A}0:1"),
        "0-1-100".to_string(),
        "3e11fa47-71ca-11e1-9e33-c80aa942956é:1".to_string(),
        "+e11fa47-71ca-11e1-9e33-c80aa9429562:1".to_string(),
    ] {
        assert!(bad.parse::<MySqlGtidSet>().is_err(), "{bad} was accepted");
    }
}

#[test]
fn mysql_text_with_too_many_intervals_is_refused() {
    let mut text = A.to_string();
    for number in 0..=INTERVALS_MAX {
        text.push_str(&format!(":{}", number * 2 + 1));
    }
    assert_eq!(
        text.parse::<MySqlGtidSet>(),
        Err(GtidError::TooLarge {
            what: "intervals",
            limit: INTERVALS_MAX
        })
    );
    let cut = text.rfind(':').unwrap();
    let mut full = set(&text[..cut]);
    assert!(full.insert(&format!("{B}:1").parse().unwrap()).is_err());
    assert!(" ".repeat(TEXT_BYTES_MAX + 1).parse::<MySqlGtidSet>().is_err());
}

#[test]
fn mysql_bytes_match_the_two_forms_seen_on_the_wire() {
    let uuid = set(&format!("{A}:1-9000")).encode();
    let mut untagged = vec![1, 0, 0, 0, 0, 0, 0, 0];
    untagged.extend(A.parse::<Uuid>().unwrap().0);
    untagged.extend([
        1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x29, 0x23, 0, 0, 0, 0, 0, 0,
    ]);
    assert_eq!(uuid, untagged);
    let tagged = set(&format!("{A}:1:abcdef:2")).encode();
    assert_eq!(tagged[..8], [1, 2, 0, 0, 0, 0, 0, 1]);
    assert_eq!(tagged[24], 0, "no tag");
    assert_eq!(tagged[8 + 17 + 8 + 16 + 16], 0x0c, "a tag of six bytes");
    assert_eq!(MySqlGtidSet::default().encode(), [0; 8]);
    assert!(MySqlGtidSet::decode(&[0; 8]).unwrap().is_empty());
}

#[test]
fn mysql_bytes_that_are_damaged_are_refused_or_give_another_set() {
    for text in [
        format!("{A}:1-5:7:9-12,{B}:3"),
        format!("{A}:1:tag:2-4:9,{B}:x:1"),
    ] {
        let good = set(&text).encode();
        for cut in 0..good.len() {
            assert!(MySqlGtidSet::decode(&good[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..good.len() {
            for flip in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << flip;
                if let Ok(other) = MySqlGtidSet::decode(&bad) {
                    // Only byte 0 of the tagged form and the case bit of a tag carry no meaning.
                    let meaningless = bad[7] == 1 && (at == 0 || flip == 5);
                    assert!(other != set(&text) || meaningless, "bit {flip} of {at}");
                }
            }
        }
        let mut longer = good.clone();
        longer.push(0);
        assert!(MySqlGtidSet::decode(&longer).is_err());
    }
    assert!(
        MySqlGtidSet::decode(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]).is_err(),
        "a huge count"
    );
}

#[test]
fn mysql_gtid_text() {
    for text in [format!("{A}:7"), format!("{A}:tag_1:7")] {
        assert_eq!(text.parse::<MySqlGtid>().unwrap().to_string(), text);
    }
    for bad in [
        format!("{A}:0"),
        format!("{A}:1-2"),
        format!("{A}::2"),
        A.into(),
        format!("{A}:1:2"),
        "1-2-3".into(),
    ] {
        assert!(bad.parse::<MySqlGtid>().is_err(), "{bad} was accepted");
    }
}

#[test]
fn mariadb_position_text_and_order() {
    let position = |text: &str| text.parse::<MariaDbPosition>().unwrap();
    assert_eq!(position("10-2-7,\n0-1-100").to_string(), "0-1-100,10-2-7");
    assert_eq!(position("").to_string(), "");
    for bad in [
        "0-1",
        "0-1-2-3",
        "0-1-x",
        "0-1-2,",
        "0-1-2,0-2-3",
        "-1-2-3",
        "4294967296-1-1",
        "0-1-18446744073709551616",
    ] {
        assert!(bad.parse::<MariaDbPosition>().is_err(), "{bad} was accepted");
    }
    let (early, late) = (position("0-1-5,1-1-5"), position("0-2-6,1-1-5"));
    assert!(early.is_subset(&late) && !late.is_subset(&early));
    assert_eq!(early.compare(&late), Some(Ordering::Less));
    assert_eq!(late.compare(&early), Some(Ordering::Greater));
    assert_eq!(early.compare(&early.clone()), Some(Ordering::Equal));
    assert_eq!(position("0-1-5").compare(&position("1-1-5")), None);
    assert_eq!(early.compare_domain(&late, 0), Ordering::Less);
    assert_eq!(early.compare_domain(&late, 9), Ordering::Equal);
    assert_eq!(position("").compare_domain(&late, 1), Ordering::Less);
    assert_eq!(
        early.union(&position("0-3-4,2-1-1")).to_string(),
        "0-1-5,1-1-5,2-1-1"
    );
    assert!(late.contains(&"0-9-6".parse().unwrap()) && !late.contains(&"0-9-7".parse().unwrap()));
}

#[test]
fn mariadb_state_knows_every_server_and_the_last_one() {
    let mut state: MariaDbState = "1-1-4,0-2-9,0-1-12".parse().unwrap();
    assert_eq!(state.to_string(), "0-2-9,0-1-12,1-1-4");
    assert_eq!(state.position().to_string(), "0-1-12,1-1-4");
    state.advance("0-2-13".parse().unwrap()).unwrap();
    assert_eq!(state.to_string(), "0-1-12,0-2-13,1-1-4");
    assert!(state.contains(&"0-1-12".parse().unwrap()) && !state.contains(&"0-1-13".parse().unwrap()));
    assert!("0-1-2,0-1-3".parse::<MariaDbState>().is_err());
    let list = GtidList { state, flags: 1 };
    let bytes = list.encode();
    assert_eq!(bytes[..4], [3, 0, 0, 0x10]);
    assert_eq!(GtidList::decode(&bytes).unwrap(), list);
    for cut in 0..bytes.len() {
        assert!(GtidList::decode(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    assert!(
        GtidList::decode(&[0xff, 0xff, 0xff, 0x0f]).is_err(),
        "a huge count"
    );
}

#[test]
fn json_is_the_canonical_text_and_nothing_else_is_read() {
    let my = GtidSet::parse(Flavour::MySql, &format!("{A}:1-5:tag:2")).unwrap();
    let json = serde_json::to_string(&my).unwrap();
    assert_eq!(json, format!("{{\"mysql\":\"{A}:1-5:tag:2\"}}"));
    assert_eq!(serde_json::from_str::<GtidSet>(&json).unwrap(), my);
    let maria = GtidSet::parse(Flavour::MariaDb, "").unwrap();
    assert_eq!(serde_json::to_string(&maria).unwrap(), "{\"mariadb\":\"\"}");
    for bad in [
        format!("{{\"mysql\":\"{A}:1-2:3\"}}"),
        "{\"mariadb\":\"1-1-1,0-1-1\"}".to_string(),
        "\"\"".to_string(),
    ] {
        assert!(
            serde_json::from_str::<GtidSet>(&bad).is_err(),
            "{bad} was accepted"
        );
    }
}

#[test]
fn the_families_do_not_mix() {
    let mut my = GtidSet::empty(Flavour::MySql);
    let theirs = Gtid::parse(Flavour::MariaDb, "0-1-1").unwrap();
    assert!(!my.contains(&theirs));
    assert!(my.insert(&theirs).is_err());
    assert!(my.is_subset(&GtidSet::empty(Flavour::MariaDb)).is_err());
    assert!(my.union(&GtidSet::empty(Flavour::MariaDb)).is_err());
}
