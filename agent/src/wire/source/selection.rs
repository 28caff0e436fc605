//! Which transactions a replica is sent: not those it has, not those to be left out, none behind the target point.
//!
//! Pure: decides at the beginning of each transaction from what its first event says.

use holdfast_proto::gtid::{Gtid, GtidList, GtidSet, MariaDbGtid, MySqlGtidSet};
use std::collections::{BTreeMap, BTreeSet};

use super::outside::Outside;
use super::refusals::Refusals;
use super::system_rows::SystemRows;
use crate::wire::event::{TransactionBegin, TransactionEnd};

/// A place between two events of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Which file ([`super::FeedItem::File`]'s `sequence`).
    pub file_sequence: u64,
    /// Where in it, in bytes.
    pub position_bytes: u64,
}

/// Where to stop sending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopPoint {
    /// At the end of the feed.
    EndOfFeed,
    /// After the transactions that begin before this place. The one form that is exact however a replica connects.
    At(Place),
    /// After this transaction. Only for replicas that connect by GTID.
    After(Gtid),
    /// Before this transaction.
    Before(Gtid),
    /// Before the first transaction, in the binlog's order, that was committed later than this time, in microseconds
    /// since 1970. Where the binlog only knows seconds, the beginning of that second counts.
    CommittedAfter(u64),
}

/// One transaction to be left out: the replica gets an empty one in its place, so that no hole stays.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftOut {
    /// By name.
    Gtid(Gtid),
    /// By where it begins.
    At(Place),
}

/// What a replica that comes by file and position has all the same, since an earlier run of its restore sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// Nothing.
    Nothing,
    /// These transactions of MySQL.
    Gtids(MySqlGtidSet),
    /// Those that begin before this place.
    Before(Place),
}

impl Applied {
    fn holds(&self, begin: &TransactionBegin, place: Place) -> bool {
        match (self, &begin.gtid) {
            (Self::Nothing, _) => false,
            (Self::Before(end), _) => place < *end,
            (Self::Gtids(set), Some(Gtid::MySql(gtid))) => set.contains(gtid),
            (Self::Gtids(_), _) => false,
        }
    }
}

/// What to send of a feed. A value: the same for every connection, or a reconnecting replica would get what it must not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Where to stop.
    pub stop: StopPoint,
    /// What to leave out before that.
    pub left_out: BTreeSet<LeftOut>,
    /// Whether statements about accounts are sent. Where the replica has other accounts they could not be applied.
    pub accounts: bool,
    /// What is not sent again.
    pub applied: Applied,
    /// What ends the stream with an error.
    pub refusals: Refusals,
    /// What statements may name that reaches out of the server.
    pub outside: Outside,
    /// What becomes of rows of the server's own tables.
    pub system_rows: SystemRows,
}

impl Selection {
    /// Everything there is.
    pub fn everything() -> Selection {
        Selection {
            stop: StopPoint::EndOfFeed,
            left_out: BTreeSet::new(),
            accounts: true,
            applied: Applied::Nothing,
            refusals: Refusals::default(),
            outside: Outside::default(),
            system_rows: SystemRows::default(),
        }
    }
}

/// What to do with a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Send,
    Omit,
    /// Not sent, but an earlier run did: see [`Applied`].
    SentBefore,
    /// Its name, and nothing in it.
    SendEmpty,
    /// Neither this one nor any later one.
    Stop,
}

/// What the replica has, and what of it was met.
#[derive(Debug, Clone)]
enum Had {
    /// It named a place to start from instead.
    Nothing,
    MySql(MySqlGtidSet),
    /// Domains whose last transaction was not met yet: what comes before it is left out. MariaDB's sequence numbers need
    /// not ascend, so only meeting it tells.
    MariaDb {
        wanted: BTreeMap<u32, MariaDbGtid>,
        started: bool,
    },
}

/// Applies a [`Selection`] to one connection.
#[derive(Debug, Clone)]
pub(super) struct Selector<'a> {
    selection: &'a Selection,
    had: Had,
    is_first_file: bool,
}

impl<'a> Selector<'a> {
    /// For a replica that has this set, or (`None`) named a place.
    pub(super) fn new(selection: &'a Selection, had: Option<GtidSet>) -> Result<Selector<'a>, String> {
        let had = match had {
            Some(GtidSet::MySql(set)) => Had::MySql(set),
            Some(GtidSet::MariaDb(position)) => Had::MariaDb {
                wanted: position.iter().map(|gtid| (gtid.domain, gtid)).collect(),
                started: false,
            },
            None if matches!(selection.stop, StopPoint::After(_)) => {
                return Err("a replica that starts from a file cannot stop after a GTID".into());
            }
            None => Had::Nothing,
        };
        Ok(Selector {
            selection,
            had,
            is_first_file: true,
        })
    }

    /// Takes the PREVIOUS_GTIDS of a file; says whether the stop lies before it.
    pub(super) fn previous_gtids(&mut self, previous: &MySqlGtidSet) -> Result<bool, String> {
        if let (Had::MySql(had), true) = (&self.had, std::mem::take(&mut self.is_first_file))
            && !previous.is_subset(had)
        {
            let missing = previous.subtract(had);
            return Err(format!(
                "the archive begins behind what the server needs first: {missing}"
            ));
        }
        Ok(self.stopped_before(|gtid| matches!(gtid, Gtid::MySql(gtid) if previous.contains(gtid))))
    }

    /// Takes the GTID_LIST of a file; says whether the stop lies before it.
    pub(super) fn gtid_list(&mut self, list: &GtidList) -> Result<bool, String> {
        if let (Had::MariaDb { wanted, .. }, true) = (&mut self.had, std::mem::take(&mut self.is_first_file))
        {
            let lost = list
                .state
                .position()
                .iter()
                .find(|last| match wanted.get(&last.domain) {
                    None => true,
                    Some(gtid) => gtid != last && list.state.contains(gtid),
                });
            if let Some(lost) = lost {
                let from = wanted
                    .get(&lost.domain)
                    .map_or("the start".to_string(), MariaDbGtid::to_string);
                return Err(format!(
                    "the archive begins behind what the server needs first: {lost} comes after {from}"
                ));
            }
            wanted.retain(|domain, gtid| list.state.last(*domain) != Some(*gtid));
        }
        Ok(self.stopped_before(|gtid| matches!(gtid, Gtid::MariaDb(gtid) if list.state.contains(gtid))))
    }

    /// A file's list of what came before it can show that the transaction to stop at did.
    fn stopped_before(&self, is_before: impl Fn(&Gtid) -> bool) -> bool {
        match &self.selection.stop {
            StopPoint::After(gtid) | StopPoint::Before(gtid) => is_before(gtid),
            StopPoint::EndOfFeed | StopPoint::At(_) | StopPoint::CommittedAfter(_) => false,
        }
    }

    /// Decides on a transaction of the file.
    pub(super) fn decide(&mut self, begin: &TransactionBegin, file_sequence: u64) -> Result<Verdict, String> {
        let place = Place {
            file_sequence,
            position_bytes: begin.position_bytes,
        };
        let stop = match &self.selection.stop {
            StopPoint::EndOfFeed | StopPoint::After(_) => false,
            StopPoint::At(stop) => place >= *stop,
            StopPoint::Before(gtid) => begin.gtid.as_ref() == Some(gtid),
            StopPoint::CommittedAfter(micros) => {
                let seconds_in_micros = u64::from(begin.timestamp_seconds) * 1_000_000;
                begin.commit_micros.unwrap_or(seconds_in_micros) > *micros
            }
        };
        if stop {
            return Ok(Verdict::Stop);
        }
        if self.has(begin)? {
            return Ok(Verdict::Omit);
        }
        if self.selection.applied.holds(begin, place) {
            return Ok(Verdict::SentBefore);
        }
        let by_name = begin
            .gtid
            .clone()
            .is_some_and(|gtid| self.selection.left_out.contains(&LeftOut::Gtid(gtid)));
        let left_out = by_name || self.selection.left_out.contains(&LeftOut::At(place));
        // An event of its own begins it, and holds nothing of what it does.
        let begins_by_itself = begin.gtid.is_some() || begin.commit_micros.is_some();
        Ok(match (left_out, begins_by_itself) {
            (false, _) => Verdict::Send,
            (true, true) => Verdict::SendEmpty,
            (true, false) => Verdict::Omit,
        })
    }

    fn has(&mut self, begin: &TransactionBegin) -> Result<bool, String> {
        match (&mut self.had, &begin.gtid) {
            (Had::Nothing, _) => Ok(false),
            (Had::MySql(had), Some(Gtid::MySql(gtid))) => Ok(had.contains(gtid)),
            (Had::MariaDb { wanted, started }, Some(Gtid::MariaDb(gtid))) => {
                *started = true;
                let Some(last) = wanted.get(&gtid.domain) else {
                    return Ok(false);
                };
                if gtid.server != last.server || gtid.sequence < last.sequence {
                    return Ok(true);
                }
                if gtid.sequence > last.sequence {
                    return Err(format!(
                        "the server is at GTID {last}, which is not in the archive"
                    ));
                }
                wanted.remove(&gtid.domain);
                Ok(true)
            }
            (_, None) => {
                Err("the archive has transactions without a GTID: replicate by file and position".into())
            }
            (Had::MySql(_), Some(Gtid::MariaDb(_))) | (Had::MariaDb { .. }, Some(Gtid::MySql(_))) => {
                Err("the archive is of the other family of servers".into())
            }
        }
    }

    /// Whether nothing follows this transaction, which is complete now.
    pub(super) fn stops_after(&self, end: &TransactionEnd, file_sequence: u64) -> bool {
        match &self.selection.stop {
            StopPoint::At(stop) => {
                Place {
                    file_sequence,
                    position_bytes: end.end_position_bytes,
                } >= *stop
            }
            StopPoint::After(gtid) => end.begin.gtid.as_ref() == Some(gtid),
            StopPoint::EndOfFeed | StopPoint::Before(_) | StopPoint::CommittedAfter(_) => false,
        }
    }

    /// Whether nothing of a file is wanted.
    pub(super) fn stops_before_file(&self, file_sequence: u64) -> bool {
        matches!(&self.selection.stop, StopPoint::At(stop) if stop.file_sequence < file_sequence)
    }
}

#[cfg(test)]
mod tests {
    use holdfast_proto::Flavour;

    use super::*;
    use crate::wire::event::EndKind;

    fn begin(gtid: &str, position_bytes: u64, commit_micros: Option<u64>) -> TransactionBegin {
        let flavour = if gtid.contains(':') {
            Flavour::MySql
        } else {
            Flavour::MariaDb
        };
        TransactionBegin {
            gtid: (!gtid.is_empty()).then(|| Gtid::parse(flavour, gtid).unwrap()),
            position_bytes,
            server_id: 1,
            timestamp_seconds: 100,
            commit_micros,
            original_commit_micros: None,
            length_bytes: None,
            is_ddl: false,
        }
    }

    fn list(state: &str) -> GtidList {
        GtidList {
            state: state.parse().unwrap(),
            flags: 0,
        }
    }

    fn selection(stop: StopPoint) -> Selection {
        Selection {
            stop,
            left_out: BTreeSet::new(),
            accounts: true,
            applied: Applied::Nothing,
            refusals: Refusals::default(),
            outside: Outside::default(),
            system_rows: SystemRows::default(),
        }
    }

    fn mariadb(position: &str) -> Option<GtidSet> {
        Some(GtidSet::parse(Flavour::MariaDb, position).unwrap())
    }

    /// What is sent of these transactions, in file 0.
    fn sent(selector: &mut Selector<'_>, gtids: &[&str]) -> Result<Vec<String>, String> {
        let mut sent = Vec::new();
        for gtid in gtids {
            if selector.decide(&begin(gtid, 500, None), 0)? == Verdict::Send {
                sent.push(gtid.to_string());
            }
        }
        Ok(sent)
    }

    #[test]
    fn mariadb_starts_where_the_transaction_is_met_whatever_the_numbers_say() {
        let everything = Selection::everything();
        let run = ["0-1-1", "0-2-7", "0-1-3", "1-1-5", "0-1-4"];
        let start = |position: &str, before: &str| {
            let mut selector = Selector::new(&everything, mariadb(position)).unwrap();
            selector.gtid_list(&list(before))?;
            sent(&mut selector, &run)
        };
        assert_eq!(start("", "").unwrap(), run);
        assert_eq!(
            start("0-1-3", "").unwrap(),
            ["1-1-5", "0-1-4"],
            "0-2-7 came before, though it is higher"
        );
        assert_eq!(start("0-1-3,1-1-5", "").unwrap(), ["0-1-4"]);
        assert_eq!(
            start("0-9-9", "0-9-9").unwrap(),
            run,
            "exactly what came before the file"
        );
        assert_eq!(start("0-1-3,5-5-5", "5-5-5").unwrap(), ["1-1-5", "0-1-4"]);
        for (position, before, why) in [
            ("0-1-2", "", "not in the archive: 0-1-3 comes instead of it"),
            (
                "",
                "0-1-0",
                "the archive begins too late for a server that has nothing",
            ),
            ("0-9-8", "0-9-9", "the archive begins too late for this one"),
        ] {
            assert!(start(position, before).is_err(), "{why}");
        }
        assert!(
            sent(&mut Selector::new(&everything, mariadb("")).unwrap(), &[""]).is_err(),
            "no GTIDs"
        );
    }

    #[test]
    fn mysql_sends_what_is_missing_and_refuses_a_late_archive() {
        let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        let set = |text: &str| text.replace('U', uuid).parse::<MySqlGtidSet>().unwrap();
        let everything = Selection::everything();
        let had = || Some(GtidSet::MySql(set("U:1-2:5")));
        let mut selector = Selector::new(&everything, had()).unwrap();
        assert_eq!(selector.previous_gtids(&set("U:1-2")), Ok(false));
        let gtids: Vec<String> = (3..=6).map(|number| format!("{uuid}:{number}")).collect();
        let gtids: Vec<&str> = gtids.iter().map(String::as_str).collect();
        assert_eq!(
            sent(&mut selector, &gtids).unwrap(),
            [gtids[0], gtids[1], gtids[3]]
        );
        assert_eq!(selector.previous_gtids(&set("U:1-6")), Ok(false), "a later file");
        let refused = Selector::new(&everything, had())
            .unwrap()
            .previous_gtids(&set("U:1-5"));
        assert!(refused.unwrap_err().contains(":3-4"));
        // A replica that has it all may be given a file behind the stop.
        let stop = selection(StopPoint::After(Gtid::parse(Flavour::MySql, gtids[0]).unwrap()));
        let all = Some(GtidSet::MySql(set("U:1-9")));
        assert_eq!(
            Selector::new(&stop, all).unwrap().previous_gtids(&set("U:1-5")),
            Ok(true)
        );
    }

    #[test]
    fn a_time_stops_before_the_first_later_one_in_the_binlog() {
        let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1";
        let stop = selection(StopPoint::CommittedAfter(99_999_999));
        let decide = |micros| {
            Selector::new(&stop, None)
                .unwrap()
                .decide(&begin(uuid, 500, micros), 0)
                .unwrap()
        };
        assert_eq!(decide(Some(99_999_999)), Verdict::Send);
        assert_eq!(decide(Some(100_000_000)), Verdict::Stop);
        assert_eq!(decide(None), Verdict::Stop, "second 100");
        let stop = selection(StopPoint::CommittedAfter(100_000_000));
        assert_eq!(
            Selector::new(&stop, None)
                .unwrap()
                .decide(&begin("", 500, None), 0)
                .unwrap(),
            Verdict::Send
        );
    }

    #[test]
    fn a_place_stops_in_any_later_file_too() {
        let at = |file_sequence, position_bytes| Place {
            file_sequence,
            position_bytes,
        };
        let stop = selection(StopPoint::At(at(3, 500)));
        let mut selector = Selector::new(&stop, None).unwrap();
        let mut decide = |position, file| selector.decide(&begin("", position, None), file).unwrap();
        assert_eq!(decide(900, 2), Verdict::Send);
        assert_eq!(decide(499, 3), Verdict::Send);
        assert_eq!(decide(500, 3), Verdict::Stop);
        assert_eq!(decide(4, 4), Verdict::Stop);
        assert!(!selector.stops_before_file(3) && selector.stops_before_file(4));
        let end = |end_position_bytes| TransactionEnd {
            begin: begin("", 400, None),
            end_position_bytes,
            timestamp_seconds: 0,
            kind: EndKind::Commit,
        };
        assert!(!selector.stops_after(&end(499), 3) && selector.stops_after(&end(500), 3));
    }

    #[test]
    fn what_an_earlier_run_sent_is_not_sent_again() {
        let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        let decide = |applied, gtid: &str, position| {
            let selection = Selection {
                applied,
                ..Selection::everything()
            };
            let mut selector = Selector::new(&selection, None).unwrap();
            selector.decide(&begin(gtid, position, None), 1).unwrap()
        };
        // Workers may have committed the third one first.
        let set: MySqlGtidSet = format!("{uuid}:1-2:4").parse().unwrap();
        let verdict = |number: u8| decide(Applied::Gtids(set.clone()), &format!("{uuid}:{number}"), 500);
        assert_eq!(
            [verdict(2), verdict(3), verdict(4)],
            [Verdict::SentBefore, Verdict::Send, Verdict::SentBefore]
        );
        let before = Applied::Before(Place {
            file_sequence: 1,
            position_bytes: 500,
        });
        assert_eq!(decide(before.clone(), "", 499), Verdict::SentBefore);
        assert_eq!(decide(before, "", 500), Verdict::Send);
    }

    #[test]
    fn after_a_gtid_is_only_for_those_who_come_by_gtid() {
        let gtid = Gtid::parse(Flavour::MariaDb, "0-1-1").unwrap();
        let stop = selection(StopPoint::After(gtid.clone()));
        assert!(Selector::new(&stop, None).is_err());
        let mut selector = Selector::new(&stop, mariadb("0-1-5")).unwrap();
        assert_eq!(
            selector.gtid_list(&list("0-1-5")),
            Ok(true),
            "it came before this file"
        );
        let left_out = Selection {
            stop: StopPoint::EndOfFeed,
            left_out: [LeftOut::Gtid(gtid)].into(),
            accounts: true,
            applied: Applied::Nothing,
            refusals: Refusals::default(),
            outside: Outside::default(),
            system_rows: SystemRows::default(),
        };
        let mut selector = Selector::new(&left_out, mariadb("")).unwrap();
        assert_eq!(
            selector.decide(&begin("0-1-1", 4, None), 0).unwrap(),
            Verdict::SendEmpty
        );
    }
}
