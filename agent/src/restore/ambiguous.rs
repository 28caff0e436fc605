//! Refuses names of transactions and places that mean two of them: after a reset they begin anew.

use std::sync::Arc;

use holdfast_proto::keys::Identity;

use super::moment::{Considered, ReplayPlan, began_ms, consider, names_a_transaction};
use super::resolve::tell;
use super::scan::Transaction;
use super::target_point::TargetPoint;
use crate::problem::{Code, Problem};
use crate::repository::Repository;
use crate::repository::catalog::ListedBackup;

/// So many older backups are asked whether they know a name as well.
const HISTORIES_MAX: u32 = 50;

/// Names of transactions and files begin anew after a reset: refuses one that an older history knows as well, but for another transaction.
/// Where the backup was named there is one candidate, and no question.
pub(super) async fn refuse_ambiguous(
    (repository, identities): (&Repository, &Arc<Vec<Identity>>),
    candidates: &[&ListedBackup],
    (chosen, first): (&ListedBackup, &ReplayPlan),
    wanted: &TargetPoint,
    notes: &mut Vec<String>,
) -> Result<(), Problem> {
    if !names_a_transaction(wanted) || candidates.len() < 2 {
        return Ok(());
    }
    let mut before_ms = began_ms(repository, chosen, first.archive.stream()).await?;
    let mut looked_at = 0;
    for listed in candidates {
        if listed.summary.started_ms >= before_ms {
            continue;
        }
        looked_at += 1;
        if looked_at > HISTORIES_MAX {
            notes.push(format!(
                "whether {wanted} is also the name of another transaction was not looked for before backup {listed:.12}",
                listed = listed.backup.to_string()
            ));
            return Ok(());
        }
        let considered = match consider(repository, identities, listed, wanted, &[], &mut Vec::new()).await {
            Ok(considered) => considered,
            // Damage in a history that nobody asked for must not keep anybody from restoring.
            Err(problem) => {
                let id = listed.backup.to_string();
                notes.push(format!(
                    "whether {wanted} is also the name of another transaction behind backup {id:.12} cannot be seen: {}",
                    problem.fact
                ));
                continue;
            }
        };
        match considered {
            Considered::Chosen(Some(other)) => {
                let (one, two) = (named_by(wanted, first), named_by(wanted, &other));
                if is_same(wanted, one, two) {
                    return Ok(()); // archived twice, or by a replica as well
                }
                let id = |listed: &ListedBackup| listed.backup.to_string()[..12].to_owned();
                let tell = |transaction: Option<&Transaction>| transaction.map_or("nothing".to_owned(), tell);
                return Err(Problem::new(
                    Code::TargetPoint,
                    format!("{wanted} names two places: {}; and {}", tell(one), tell(two)),
                    format!(
                        "say which is meant by the backup before it: --backup {} for the first, --backup {} for the second",
                        id(chosen),
                        id(listed)
                    ),
                ));
            }
            Considered::NotInStream(_, stream) => before_ms = began_ms(repository, listed, stream).await?,
            _ => {}
        }
    }
    Ok(())
}

/// Whether two histories mean the same transaction by a name. A replica has it under the same GTID, at another place.
fn is_same(wanted: &TargetPoint, one: Option<&Transaction>, two: Option<&Transaction>) -> bool {
    match (wanted, one, two) {
        (TargetPoint::Gtid(_) | TargetPoint::BeforeGtid(_), Some(one), Some(two)) => {
            one.gtid != two.gtid || one.original_us == two.original_us
        }
        _ => one == two,
    }
}

/// The transaction that a target point names in a history.
fn named_by<'a>(wanted: &TargetPoint, replay: &'a ReplayPlan) -> Option<&'a Transaction> {
    match wanted {
        TargetPoint::BeforeGtid(_) | TargetPoint::Before(_) => replay.resolved.next.as_ref(),
        _ => replay.resolved.last.as_ref(),
    }
}
