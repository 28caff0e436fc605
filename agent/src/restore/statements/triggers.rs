//! Takes triggers away while rows are changed by statements: their effects are in the binlog already, and the server would run them again.
//!
//! Their definitions are in the restore's journal meanwhile, so that none is lost to a kill.

use crate::problem::{Code, Problem};
use crate::restore::accounts::unusable;
use crate::restore::journal::{Entry, Journal};
use crate::restore::replay::replay_problem;
use crate::server::apply;
use crate::server::capture;
use crate::server::inventory::{Inventory, ProgramKind};
use crate::server::rebuild::{Phase, RebuildPlan};
use crate::wire::{Connection, WireError};

fn fail(error: WireError) -> Problem {
    replay_problem("take triggers away for the replay", &error)
}

/// Takes all of them away.
pub(super) async fn take_away(connection: &mut Connection, journal: &mut Journal) -> Result<(), Problem> {
    put_back(connection, journal).await?;
    let captured = capture::capture(connection).await;
    let mut inventory = captured.map_err(|error| {
        Problem::new(
            Code::Load,
            format!("read the triggers of the target server: {error}"),
            "look into its error log",
        )
    })?;
    inventory
        .programs
        .retain(|program| program.kind == ProgramKind::Trigger);
    inventory.tables.clear();
    inventory.accounts.clear();
    journal
        .write(Entry::TriggersAway, &serde_json::json!(inventory).to_string())
        .await?;
    for program in &inventory.programs {
        let drop_it = format!("DROP TRIGGER {}", program.name.quoted());
        connection.execute(drop_it).await.map_err(fail)?;
    }
    Ok(())
}

/// Makes those again that were taken away.
pub(super) async fn put_back(connection: &mut Connection, journal: &mut Journal) -> Result<(), Problem> {
    let Some(away) = journal.get(Entry::TriggersAway) else {
        return Ok(());
    };
    let inventory: Inventory = serde_json::from_str(away).map_err(|error| unusable(&error))?;
    let plan = RebuildPlan::new(&inventory).map_err(|error| unusable(&error))?;
    let cannot = |error: &dyn std::fmt::Display| {
        Problem::new(
            Code::Load,
            format!("make triggers again: {error}"),
            "the same command goes on once the account may do that",
        )
    };
    // A kill may have left some of them: made again all together they keep their order.
    for program in &inventory.programs {
        let drop_it = format!("DROP TRIGGER IF EXISTS {}", program.name.quoted());
        connection.execute(drop_it).await.map_err(fail)?;
    }
    apply::prepare(connection).await.map_err(|error| cannot(&error))?;
    for step in plan.steps(Phase::Programs) {
        let made = apply::apply_step(connection, step).await;
        made.map_err(|error| cannot(&error))?;
    }
    journal.forget(Entry::TriggersAway).await
}
