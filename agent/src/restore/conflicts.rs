//! Work that is tried again: those who load rows or add indexes may wait for each other's locks, and then the server ends one of
//! them.
//!
//! Not responsible for undoing what was begun.

use std::time::Duration;

use crate::problem::Problem;
use crate::wire::WireError;

const ER_LOCK_WAIT_TIMEOUT: u16 = 1205;
const ER_LOCK_DEADLOCK: u16 = 1213;

/// How often something is tried in all.
pub(super) const TRIES: u32 = 10;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Whether a statement failed only because of what others were doing.
pub(super) fn is_one(error: &WireError) -> bool {
    matches!(error.server_code(), Some(ER_LOCK_WAIT_TIMEOUT | ER_LOCK_DEADLOCK))
}

/// How long to wait after so many tries.
pub(super) fn pause(tries: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1_u32.checked_shl(tries.saturating_sub(1)).unwrap_or(u32::MAX));
    doubled.min(LONGEST_PAUSE)
}

/// The problem that is left when trying again did not help, or cannot.
pub(super) fn gave_up(problem: Problem) -> Problem {
    let hint = format!(
        "something holds locks that the restore needs: --threads 1 leaves no other loader that could, else look for other sessions \
         on the target server\n{}",
        problem.hint
    );
    Problem { hint, ..problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        let pauses: Vec<u128> = [1, 2, 3, 7, 8, 40, u32::MAX]
            .map(|tries| pause(tries).as_millis())
            .to_vec();
        assert_eq!(pauses, [50, 100, 200, 3200, 5000, 5000, 5000]);
    }
}
