//! Stories: what happens to the world, drawn by a seed.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::chance::Chance;
use super::check::Refused;
use super::provider::Mood;
use super::{BOUND, Place, World, check, play};

/// What may happen in a story beside commits, rotations and restarts of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    Moods,
    Kills,
    Clock,
    Crashes,
    Resets,
    Purges,
    RollBacks,
    Swaps,
    Damage,
    Clone,
    FullDisk,
    Locks,
    LostState,
}

const TROUBLES: [Trouble; 13] = [
    Trouble::Moods,
    Trouble::Kills,
    Trouble::Clock,
    Trouble::Crashes,
    Trouble::Resets,
    Trouble::Purges,
    Trouble::RollBacks,
    Trouble::Swaps,
    Trouble::Damage,
    Trouble::Clone,
    Trouble::FullDisk,
    Trouble::Locks,
    Trouble::LostState,
];

/// What a story draws from. Not every mixture is survived yet: those that are not in one cast, and no story at all of roll-backs, swaps, damage
/// and clones. `HOLDFAST_SIMULATION_TROUBLES=all`, or names of them, plays others.
const CASTS: [&[Trouble]; 4] = [
    &[
        Trouble::Moods,
        Trouble::Kills,
        Trouble::Crashes,
        Trouble::Purges,
        Trouble::FullDisk,
        Trouble::Locks,
    ],
    &[
        Trouble::Moods,
        Trouble::Kills,
        Trouble::Crashes,
        Trouble::Purges,
        Trouble::Locks,
        Trouble::Clock,
    ],
    &[Trouble::LostState, Trouble::Kills, Trouble::Moods],
    &[Trouble::Resets, Trouble::Moods, Trouble::Kills, Trouble::Crashes],
];

fn cast(seed: u64) -> Vec<Trouble> {
    let Ok(names) = std::env::var("HOLDFAST_SIMULATION_TROUBLES") else {
        return CASTS[(seed % CASTS.len() as u64) as usize].to_vec();
    };
    let is_named =
        |trouble: &Trouble| names == "all" || names.split(',').any(|name| format!("{trouble:?}") == name);
    TROUBLES.into_iter().filter(is_named).collect()
}

struct Story {
    world: World,
    places: Vec<Place>,
    chance: Chance,
    troubles: Vec<Trouble>,
    steps: Vec<String>,
    /// Since when a status contradicts what can be restored, by place and provider, and how.
    wrong: BTreeMap<(usize, usize), (Instant, String)>,
    /// How often something was called durable and could be restored.
    confirmed: u64,
    /// Providers that were harmed since the agents started last: nobody looks before that.
    harmed: Vec<bool>,
}

impl Story {
    async fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let world = World::new(&mut chance).await;
        let began = Instant::now();
        let mut place = world.place(began, &mut chance);
        world.start(&mut place).await;
        assert!(
            place.agent.is_some(),
            "nothing keeps the first start from going well"
        );
        let cast = cast(seed);
        let share = 1 + cast.len() as u64 / 3;
        let troubles = cast.into_iter().filter(|_| chance.one_in(share)).collect();
        Self {
            harmed: vec![false; world.providers.len()],
            world,
            places: vec![place],
            chance,
            troubles,
            steps: Vec::new(),
            wrong: BTreeMap::new(),
            confirmed: 0,
        }
    }

    async fn pass(&mut self, time: Duration) {
        self.world.servers.tick(time.as_secs() as u32);
        tokio::time::sleep(time).await;
    }

    async fn start(&mut self, place: usize) {
        self.world.start(&mut self.places[place]).await;
        if place == 0 {
            self.harmed.fill(false);
        }
    }

    /// One step. Says what happened.
    async fn step(&mut self) -> String {
        let place = self.chance.below(self.places.len() as u64) as usize;
        let server = self.places[place].server;
        let count = self.troubles.len() as u64;
        match self.chance.below(5 + count) {
            0 | 1 => {
                let commits = 1 + self.chance.below(6);
                for _ in 0..commits {
                    self.world.servers.commit(server);
                }
                format!("{commits} commits on {place}")
            }
            2 => {
                self.world.servers.rotate(server);
                format!("rotation on {place}")
            }
            3 => match self.places[place].agent.take() {
                Some(agent) => {
                    agent.stop().await;
                    self.start(place).await;
                    format!("agent {place} is restarted")
                }
                None => {
                    self.start(place).await;
                    format!("agent {place} starts")
                }
            },
            4 => {
                self.pass(Duration::from_secs(70)).await;
                "time passes".to_owned()
            }
            other => {
                let trouble = self.troubles[(other - 5) as usize];
                let what = self.trouble(trouble, place).await;
                format!("{trouble:?}: {what}")
            }
        }
    }

    async fn trouble(&mut self, trouble: Trouble, place: usize) -> String {
        let server = self.places[place].server;
        match trouble {
            Trouble::Moods | Trouble::RollBacks | Trouble::Swaps | Trouble::Damage => {
                self.trouble_with_provider(trouble).await
            }
            Trouble::Crashes | Trouble::Resets | Trouble::Purges | Trouble::Locks => {
                self.trouble_with_server(trouble, server).await
            }
            _ => self.trouble_with_host(trouble, place).await,
        }
    }

    async fn trouble_with_provider(&mut self, trouble: Trouble) -> String {
        let which = self.chance.below(self.world.providers.len() as u64) as usize;
        let provider = self.world.providers[which].clone();
        let name = provider.name;
        match trouble {
            Trouble::RollBacks => {
                let objects = 1 + self.chance.below(8) as usize;
                provider.roll_back(objects);
                self.harmed[which] = true;
                format!("{name} loses its last {objects} objects")
            }
            Trouble::Swaps if provider.is_empty() => {
                self.world.initialise(&provider);
                format!("{name} is initialised")
            }
            Trouble::Swaps => {
                provider.empty();
                self.harmed[which] = true;
                format!("{name} is empty")
            }
            Trouble::Damage => {
                let (back, other) = (self.chance.below(5) as usize, 1 - which);
                let damaged = provider.damage("/small/", back);
                let lost = self.chance.one_in(2) && self.world.providers[other].lose("/small/", back);
                self.harmed[which] |= damaged;
                self.harmed[other] |= lost;
                format!(
                    "segment {back} from the end is damaged in {name} ({damaged}), and lost in the other ({lost})"
                )
            }
            _ => {
                let moods = [
                    Mood::Well,
                    Mood::Well,
                    Mood::Away,
                    Mood::Hangs,
                    Mood::Full,
                    Mood::LosesAnswers,
                    Mood::Slow(Duration::from_secs(3)),
                    Mood::Slow(Duration::from_secs(25)),
                ];
                let mood = moods[self.chance.below(moods.len() as u64) as usize];
                provider.set(mood);
                format!("{name} is {mood:?}")
            }
        }
    }

    async fn trouble_with_server(&mut self, trouble: Trouble, server: usize) -> String {
        let servers = self.world.servers.clone();
        match trouble {
            Trouble::Crashes => {
                let lost = self.chance.below(4) as usize;
                servers.stop(server, lost);
                let pause = self.chance.below(30);
                self.pass(Duration::from_secs(pause)).await;
                servers.start(server);
                format!("server {server} restarts after {pause} s, {lost} transactions are lost")
            }
            Trouble::Resets => {
                servers.reset(server);
                format!("RESET MASTER on {server}")
            }
            Trouble::Purges => {
                servers.purge(server);
                format!("PURGE on {server}")
            }
            _ => {
                let is_locked = self.chance.one_in(2);
                servers.lock(server, is_locked);
                format!("account on {server} is locked: {is_locked}")
            }
        }
    }

    async fn trouble_with_host(&mut self, trouble: Trouble, place: usize) -> String {
        let host = self.places[place].host.clone();
        match trouble {
            Trouble::Clock => {
                let hours = [-72, -25, -1, 1, 25, 72][self.chance.below(6) as usize];
                let now = host.ahead_ms.load(Ordering::Relaxed);
                let ahead = if now == 0 { hours * 3_600_000 } else { 0 };
                host.ahead_ms.store(ahead, Ordering::Relaxed);
                format!("clock of {place} is {} h ahead", ahead / 3_600_000)
            }
            Trouble::Clone if self.places.len() > 1 => "there is a clone".to_owned(),
            Trouble::Clone => {
                let seed = self.chance.next();
                let copy = Place {
                    host: host.copy(Chance::new(seed)).into(),
                    server: self.world.servers.copy(self.places[0].server),
                    agent: None,
                };
                self.places.push(copy);
                self.start(1).await;
                "host 0 is cloned".to_owned()
            }
            Trouble::FullDisk => {
                let is_full = !host.is_full.load(Ordering::Relaxed);
                host.is_full.store(is_full, Ordering::Relaxed);
                format!("disk of {place} is full: {is_full}")
            }
            Trouble::LostState => {
                self.places[place].agent = None;
                host.wipe();
                self.start(place).await;
                format!("agent {place} loses its state")
            }
            _ => {
                self.places[place].agent = None;
                let pause = self.chance.below(10);
                self.pass(Duration::from_secs(pause)).await;
                self.start(place).await;
                format!("agent {place} is killed, and starts after {pause} s")
            }
        }
    }

    /// What has to hold now; what is wrong for too long.
    async fn check(&mut self) -> Result<(), String> {
        for (at, place) in self.places.iter().enumerate() {
            let Some(agent) = &place.agent else { continue };
            if agent.has_failed() {
                return Err(format!("a task of agent {at} ended"));
            }
            let status = agent.status();
            for (which, provider) in self.world.providers.iter().enumerate() {
                if let Err(Refused::NoHistory(what)) = check::restore(&self.world, &[provider]).await {
                    return Err(what);
                }
                let wrong = match status.is_green && !self.harmed[which] {
                    true => check::contradiction(&self.world, &status, provider).await,
                    false => None,
                };
                match wrong {
                    None => {
                        self.confirmed += u64::from(status.is_green);
                        self.wrong.remove(&(at, which));
                    }
                    Some(what) => {
                        let now = Instant::now();
                        let (since, _) = self.wrong.entry((at, which)).or_insert((now, what.clone()));
                        if now - *since > BOUND {
                            return Err(format!("agent {at} is green, and {what}"));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Everything is well again; after a while all that was archived can be restored, or it is said why not.
    async fn end(&mut self) -> Result<(), String> {
        for provider in self.world.providers.clone() {
            provider.set(Mood::Well);
            // An operator sees the alarm.
            self.world.initialise(&provider);
        }
        for at in 0..self.places.len() {
            let server = self.places[at].server;
            self.world.servers.lock(server, false);
            self.world.servers.start(server);
            self.places[at].host.is_full.store(false, Ordering::Relaxed);
            self.start(at).await;
            self.world.servers.commit(server);
        }
        for _ in 0..3 {
            self.pass(BOUND).await;
            self.check().await?;
        }
        Ok(())
    }
}

/// Plays the story of a seed; `Err`: what is wrong, and what had happened.
fn told(seed: u64) -> Result<u64, String> {
    play(async || {
        let mut story = Story::new(seed).await;
        let steps = 10 + story.chance.below(25);
        let mut result = Ok(());
        for _ in 0..steps {
            let what = story.step().await;
            story.steps.push(what);
            let pause = 1 + story.chance.below(20);
            story.pass(Duration::from_secs(pause)).await;
            result = story.check().await;
            if result.is_err() {
                break;
            }
        }
        if result.is_ok() {
            result = story.end().await;
        }
        result.map(|()| story.confirmed).map_err(|what| {
            let statuses: Vec<String> = story
                .places
                .iter()
                .map(|place| {
                    let status = place.agent.as_ref().map(|agent| agent.status());
                    let status = status.unwrap_or_default();
                    format!("{} {:?} {:?}", status.stream, status.alarms, status.providers)
                })
                .collect();
            format!(
                "seed {seed} ({:?}): {what}\n  {}\n{}",
                story.troubles,
                story.steps.join("\n  "),
                statuses.join("\n")
            )
        })
    })
}

#[test]
fn what_is_durable_can_be_restored_and_what_is_restored_was_there() {
    let number =
        |name: &str, other: u64| std::env::var(name).map_or(other, |text| text.parse().expect("a number"));
    let (first, count) = (
        number("HOLDFAST_SIMULATION_FIRST", 0),
        number("HOLDFAST_SIMULATIONS", 60),
    );
    let (mut wrong, mut confirmed) = (Vec::new(), 0);
    for seed in first..first + count {
        let result = std::panic::catch_unwind(|| told(seed));
        match result {
            Ok(Ok(count)) => confirmed += count,
            Ok(Err(what)) => wrong.push(what),
            Err(_) => wrong.push(format!("seed {seed} panicked")),
        }
    }
    for what in wrong.iter().take(5) {
        eprintln!("{what}\n");
    }
    eprintln!("{confirmed} times what was called durable could be restored");
    assert!(confirmed > count, "the stories have to be about something");
    assert!(wrong.is_empty(), "{} of {count} seeds went wrong", wrong.len());
}
