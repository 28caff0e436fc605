//! What a server that we start is given, to be like the source: its settings, plugins, time zones, keys and clock.
//!
//! What an operator's own server lacks of that is found in [`crate::server::preflight`].

use holdfast_proto::Flavour;

use super::accounts::unusable;
use super::{RestorePlan, indexes};
use crate::instance::{Bounds, InstanceOptions, Keyring};
use crate::problem::{Code, Problem};
use crate::server::zone::SYSTEM_ZONE;
use crate::server::{encryption, needs, plugins, statement_settings, time_zones};
use crate::words;

/// Options of a server that we start to restore into: those of the source that decide what it can hold.
///
/// # Errors
/// [`Problem`] where it needs keys to encrypt tables with and has none.
pub fn scratch_options(
    plan: &RestorePlan,
    bounds: Bounds,
    keyring: Option<Keyring>,
) -> Result<InstanceOptions, Problem> {
    refuse_without_keys(plan, keyring.is_some())?;
    let mut arguments = scratch_arguments(plan);
    if keyring.is_some() {
        arguments.extend(encryption::arguments(&plan.inventory));
    }
    Ok(InstanceOptions {
        arguments,
        // Statements may go by the clock of the source's host.
        time_zone: plan.inventory.server.settings.get(SYSTEM_ZONE).cloned(),
        restores: Some(plan.manifest.backup.to_string()),
        bounds,
        keyring,
        first: time_zones::statements(&plan.inventory.time_zones),
    })
}

/// Refuses to make a server without keys of what was encrypted, unless it is to be unencrypted.
///
/// # Errors
/// [`Problem`], which names what was encrypted.
pub fn refuse_without_keys(plan: &RestorePlan, has_keyring: bool) -> Result<(), Problem> {
    const SHOWN: usize = 10;
    let encrypted = encryption::encrypted(&plan.inventory);
    if has_keyring || encrypted.is_empty() {
        return Ok(());
    }
    let shown = words::some_of(&encrypted, SHOWN);
    Err(Problem::new(
        Code::TargetServer,
        format!(
            "a new server has no keys to encrypt tables with, and these are encrypted on the source: {shown}"
        ),
        "name the file in which a server finds its keyring: --keyring FILE (a verifier: mariadb_keyring or mysql_keyring in [scratch]); \
         or restore without encryption, where that will do: --unencrypted (a verifier: unencrypted = true in [scratch])",
    ))
}

impl RestorePlan {
    /// Restores everything without encryption on the disk.
    ///
    /// # Errors
    /// [`Problem`] where the definitions are not what they should be.
    pub fn without_encryption(mut self) -> Result<Self, Problem> {
        self.unencrypted = encryption::take_out(&mut self.inventory);
        self.rebuild = indexes::later(&self.inventory).map_err(|error| unusable(&error))?;
        if let Some(replay) = &mut self.replay {
            replay.unencrypted = true;
        }
        Ok(self)
    }

    /// What a server must have, and what is done without, for people.
    pub(super) fn describe_needs(&self) -> Vec<String> {
        let needs = needs::of(&self.inventory);
        let needs = (!needs.is_empty()).then(|| format!("needs      {}", needs.join("; ")));
        needs.into_iter().chain(self.told_unencrypted()).collect()
    }

    /// What is restored unencrypted, for people.
    pub fn told_unencrypted(&self) -> Option<String> {
        (!self.unencrypted.is_empty()).then(|| {
            format!(
                "note       unencrypted here, as asked for, and encrypted on the source's disk: {}",
                self.unencrypted.join(", ")
            )
        })
    }
}

fn scratch_arguments(plan: &RestorePlan) -> Vec<String> {
    let mut options = vec![
        "--server-id=4294967295".to_owned(),
        format!("--innodb-buffer-pool-size={}M", buffer_pool_mib()),
    ];
    // A small redo log would have the server write its pages again and again while it is loaded.
    options.push(match plan.manifest.source.flavour {
        Flavour::MariaDb => "--innodb-log-file-size=1G".to_owned(),
        Flavour::MySql => "--innodb-redo-log-capacity=1G".to_owned(),
    });
    options.extend(statement_settings::arguments(&plan.inventory.server.settings));
    options.extend(plugins::arguments(&plan.inventory, plan.replay.is_some()));
    if plan.manifest.source.flavour == Flavour::MariaDb {
        // Tables are made in its own folder, wherever they lay at the source: it may run on the source's host. MySQL allows no other
        // folders by itself.
        options.push("--skip-symbolic-links".to_owned());
        // Says who holds the definition of a table, should a replay stand still. Without it the server starts as well.
        options.push("--plugin-load-add=metadata_lock_info".to_owned());
    }
    if plan.replay.is_some() {
        // What is received and not applied yet must not fill the disk.
        options.push("--relay-log-space-limit=4G".to_owned());
    }
    if plan.manifest.source.flavour == Flavour::MySql {
        options.extend(gtid_arguments(plan));
    }
    options
}

/// What is replayed must have names where the source's transactions have, and none where they have none.
fn gtid_arguments(plan: &RestorePlan) -> [String; 3] {
    let settings = &plan.inventory.server.settings;
    let with_gtids = match &plan.replay {
        Some(replay) => replay.has_gtids(),
        None => settings.get("gtid_mode").is_some_and(|mode| mode == "ON"),
    };
    let mode = if with_gtids { "ON" } else { "OFF" };
    [
        // What it has committed is then written with the rows, so that a crash cannot part the two.
        "--skip-log-bin".to_owned(),
        format!("--gtid-mode={mode}"),
        format!("--enforce-gtid-consistency={mode}"),
    ]
}

/// A quarter of the memory that is free, from 256 MiB to 2 GiB.
fn buffer_pool_mib() -> u64 {
    let available_kib = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    });
    (available_kib.unwrap_or(0) / 1024 / 4).clamp(256, 2048)
}
