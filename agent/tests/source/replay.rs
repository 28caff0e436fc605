//! A server replaying from a source of ours.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use holdfast_agent::wire::event::{FormatDescription, HEADER_BYTES};
use holdfast_agent::wire::source::{
    AttachBy, EventFeed, EventStream, FeedItem, ListenAt, Place, Selection, Source, SourceOptions,
    SourceStatus, StartPoint, attach_statements,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::feed::FileFeed;
use crate::server::{Kind, Server};

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Replay {
    feed: Arc<FileFeed>,
    status: watch::Receiver<SourceStatus>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    started: Instant,
}

impl Replay {
    pub(crate) async fn start(
        files: &[PathBuf],
        selection: Selection,
        target: &Server,
        by: &AttachBy,
    ) -> Replay {
        Replay::from(FileFeed::new(files, 0), selection, target, by, ListenAt::Loopback).await
    }

    /// Inside TLS, as from another machine. The first three streams break.
    pub(crate) async fn breaking(
        files: &[PathBuf],
        selection: Selection,
        target: &Server,
        by: &AttachBy,
    ) -> Replay {
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let address = free.to_string().parse().unwrap();
        Replay::from(
            FileFeed::new(files, 3),
            selection,
            target,
            by,
            ListenAt::Address(address),
        )
        .await
    }

    /// Streams break at these places, one after the other.
    pub(crate) async fn breaking_at(
        files: &[PathBuf],
        places: &[Place],
        selection: Selection,
        target: &Server,
        by: &AttachBy,
    ) -> Replay {
        let feed = FileFeed::breaking_at(files, places);
        Replay::from(feed, selection, target, by, ListenAt::Loopback).await
    }

    async fn from(
        feed: FileFeed,
        selection: Selection,
        target: &Server,
        by: &AttachBy,
        at: ListenAt,
    ) -> Replay {
        let format = format(&feed).await;
        let gtid_mode_on = target.kind == Kind::MySql && target.sql("SELECT @@GLOBAL.gtid_mode") == "ON";
        let (flavour, server_version) = (format.flavour, format.server_version);
        let options = SourceOptions {
            flavour,
            server_version,
            gtid_mode_on,
            selection,
        };
        let source = Source::bind(options, &at).await.unwrap();
        let statements = attach_statements(&source, by);
        let (feed, status, shutdown) = (Arc::new(feed), source.status(), CancellationToken::new());
        let task = tokio::spawn(source.run(feed.clone(), shutdown.clone()));
        let started = Instant::now();
        target.sql(&statements.join(";"));
        Replay {
            feed,
            status,
            shutdown,
            task,
            started,
        }
    }

    pub(crate) fn breaks(&self) -> usize {
        self.feed.breaks.load(Ordering::SeqCst)
    }

    /// Until the source has sent all and the server has applied it.
    pub(crate) async fn wait_for_gtids(&self, target: &Server, gtids: &str) {
        let wait = match target.kind {
            Kind::MySql => format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{gtids}', 1)"),
            Kind::MariaDb => format!("SELECT MASTER_GTID_WAIT('{gtids}', 1)"),
        };
        self.wait(target, &wait, |answer| answer == "0").await;
    }

    pub(crate) async fn wait_for_place(&self, target: &Server, file: &str, position: u64) {
        let function = if target.kind == Kind::MySql {
            "SOURCE_POS_WAIT"
        } else {
            "MASTER_POS_WAIT"
        };
        let wait = format!("SELECT {function}('{file}', {position}, 1)");
        self.wait(target, &wait, |answer| {
            answer.parse().is_ok_and(|number: i64| number >= 0)
        })
        .await;
    }

    pub(crate) async fn wait(&self, target: &Server, sql: &str, is_done: impl Fn(&str) -> bool) {
        while !is_done(&tokio::task::block_in_place(|| target.sql(sql))) {
            let status = self.status.borrow().clone();
            let errors = target.replica_errors();
            assert!(self.started.elapsed() < PATIENCE, "{sql}: {status:?}\n{errors}");
            assert!(!errors.contains("SQL_Running: No"), "{sql}: {status:?}\n{errors}");
        }
        let mut status = self.status.clone();
        let end = tokio::time::timeout(
            Duration::from_secs(10),
            status.wait_for(|status| status.end.is_some()),
        );
        let status = end
            .await
            .expect("the source knows that it is done")
            .unwrap()
            .clone();
        assert!(!status.end.as_ref().expect("just waited for").inside_transaction);
        println!(
            "{} transactions in {:.1?}",
            status.transactions_sent,
            self.started.elapsed()
        );
    }

    /// Connected and exactly there, although the source has more: for three heartbeats.
    pub(crate) async fn stays_at(&self, target: &Server, gtids: &str) {
        let heartbeats = || {
            match target.kind {
            Kind::MySql => target.sql("SELECT count_received_heartbeats FROM performance_schema.replication_connection_status"),
            Kind::MariaDb => target.sql("SELECT variable_value FROM information_schema.global_status WHERE variable_name='Slave_received_heartbeats'"),
        }
        };
        let before: u64 = heartbeats().parse().unwrap();
        tokio::time::sleep(Duration::from_secs(7)).await;
        let after: u64 = heartbeats().parse().unwrap();
        assert!(after >= before + 2, "heartbeats: {before} and then {after}");
        assert_eq!(target.gtids(), gtids);
        let errors = target.replica_errors();
        assert_eq!(errors.matches("_Running: Yes").count(), 2, "{errors}");
        assert_eq!(self.status.borrow().replicas, 1);
    }

    /// The failure that the source reports.
    pub(crate) async fn failure(&self) -> String {
        let mut status = self.status.clone();
        let failed = tokio::time::timeout(
            Duration::from_secs(30),
            status.wait_for(|status| status.failure.is_some()),
        );
        failed
            .await
            .expect("a failure within 30 seconds")
            .unwrap()
            .failure
            .clone()
            .expect("just waited for")
    }

    pub(crate) async fn stop(self, target: &Server) {
        target.sql(match target.kind {
            Kind::MySql => "STOP REPLICA; RESET REPLICA ALL",
            Kind::MariaDb => "STOP SLAVE; RESET SLAVE ALL",
        });
        self.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(5), self.task)
            .await
            .expect("the source ends at once")
            .unwrap();
    }
}

async fn format(feed: &FileFeed) -> FormatDescription {
    let start = StartPoint::File {
        name: feed.first_name(),
        position_bytes: 4,
    };
    let mut stream = feed.unbroken().open(start).await.unwrap();
    let Some(FeedItem::File { format, .. }) = stream.next().await.unwrap() else {
        panic!("a file comes first")
    };
    FormatDescription::parse(&format[HEADER_BYTES..]).unwrap()
}
