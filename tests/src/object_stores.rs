//! Real object stores on loopback, each with a folder of its own: SeaweedFS and rclone as S3, Azurite as Azure Blob.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::installed;
use crate::process::{Process, Signal, free_ports, run, short_folder};

const START_LIMIT: Duration = Duration::from_secs(60);

/// Access key and secret of an S3 account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct S3Account {
    /// The access key id.
    pub access_key: &'static str,
    /// The secret access key.
    pub secret_key: &'static str,
}

/// May do everything, on SeaweedFS; the only account of rclone.
pub const ADMIN: S3Account = S3Account {
    access_key: "adminkey",
    secret_key: "adminsecret",
};
/// May read, write and list, on SeaweedFS.
pub const WRITER: S3Account = S3Account {
    access_key: "writerkey",
    secret_key: "writersecret",
};
/// May read and list, on SeaweedFS.
pub const READER: S3Account = S3Account {
    access_key: "readerkey",
    secret_key: "readersecret",
};

/// The account that Azurite has from the start.
pub const AZURE_ACCOUNT: &str = "devstoreaccount1";
/// Its key, as Azurite's documentation gives it.
pub const AZURE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Which object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// SeaweedFS: S3 with conditional puts, versions and object lock.
    SeaweedFs,
    /// Azurite: Azure Blob with conditional puts.
    Azurite,
    /// `rclone serve s3`: S3 that accepts conditional puts and overwrites all the same.
    Rclone,
}

/// A running object store with data of its own in a temporary folder; both end when it is dropped.
#[derive(Debug)]
pub struct ObjectStore {
    // Before `folder`, so that the server has ended when its files are removed.
    process: Option<Process>,
    folder: tempfile::TempDir,
    kind: StoreKind,
    /// The first is the store's; SeaweedFS has more for its parts.
    ports: Vec<u16>,
    /// Further accounts of SeaweedFS, each with the policy (JSON, as AWS has it) that says all that it may do.
    policies: Vec<(S3Account, String)>,
}

impl ObjectStore {
    /// Starts an empty store and waits until it takes objects.
    pub fn start(kind: StoreKind) -> ObjectStore {
        ObjectStore::start_with(kind, Vec::new())
    }

    /// The same of SeaweedFS, with further accounts that may do what their policy says and nothing else.
    pub fn start_with_policies(policies: Vec<(S3Account, String)>) -> ObjectStore {
        ObjectStore::start_with(StoreKind::SeaweedFs, policies)
    }

    fn start_with(kind: StoreKind, policies: Vec<(S3Account, String)>) -> ObjectStore {
        let folder = short_folder();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap_or_else(|error| panic!("{}: {error}", data.display()));
        let mut store = ObjectStore {
            process: None,
            folder,
            kind,
            ports: free_ports(8),
            policies,
        };
        store.launch();
        store
    }

    /// Ends it at once (SIGKILL); what it stored stays for [`ObjectStore::restart`].
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again, on the same port and data.
    pub fn restart(&mut self) {
        self.kill();
        self.launch();
    }

    /// Other further accounts, from the next start on.
    pub fn replace_policies(&mut self, policies: Vec<(S3Account, String)>) {
        self.policies = policies;
    }

    /// Sends a signal, for instance to freeze it.
    pub fn signal(&self, signal: Signal) {
        match &self.process {
            Some(process) => process.signal(signal),
            None => panic!("{:?} does not run", self.kind),
        }
    }

    /// What a client is told to connect to.
    pub fn endpoint(&self) -> String {
        let account = if self.kind == StoreKind::Azurite {
            format!("/{AZURE_ACCOUNT}")
        } else {
            String::new()
        };
        format!("http://127.0.0.1:{}{account}", self.ports[0])
    }

    /// Creates a bucket, or on Azurite a container.
    pub fn create_bucket(&self, name: &str) {
        match self.kind {
            // On these a bucket is a folder; in SeaweedFS of the server behind its S3 gateway.
            StoreKind::Rclone => {
                let bucket = self.data().join(name);
                fs::create_dir(&bucket).unwrap_or_else(|error| panic!("{}: {error}", bucket.display()));
            }
            StoreKind::SeaweedFs => {
                let answer = http(self.ports[5], &format!("POST /buckets/{name}/"));
                assert!(
                    answer.starts_with("HTTP/1.1 201"),
                    "SeaweedFS makes no bucket: {answer}"
                );
            }
            StoreKind::Azurite => {
                let script = include_str!("azure_container.js");
                run(Command::new(installed::node()).args([
                    "-e",
                    script,
                    &self.endpoint(),
                    AZURE_ACCOUNT,
                    AZURE_KEY,
                    name,
                ]));
            }
        }
    }

    /// The folder in which it keeps what it stores, in a layout of its own (rclone: a file per object).
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn launch(&mut self) {
        let folder = self.folder.path().to_owned();
        let mut command = match self.kind {
            StoreKind::SeaweedFs => seaweedfs(&folder, &self.ports, &self.policies),
            StoreKind::Azurite => azurite(&folder, self.ports[0]),
            StoreKind::Rclone => rclone(&folder, self.ports[0]),
        };
        let mut process = Process::start(&format!("{:?}", self.kind), &mut command, &folder.join("log"));
        process.wait_ready(START_LIMIT, || self.is_ready());
        self.process = Some(process);
    }

    fn is_ready(&self) -> bool {
        match self.kind {
            // The gateway answers and, behind it, there is a volume that takes objects.
            StoreKind::SeaweedFs => {
                http(self.ports[0], "GET /healthz").starts_with("HTTP/1.1 200")
                    && http(self.ports[1], "GET /dir/assign").contains("\"fid\"")
            }
            StoreKind::Azurite | StoreKind::Rclone => http(self.ports[0], "GET /").starts_with("HTTP/"),
        }
    }
}

/// The accounts of a SeaweedFS, as its file of them.
fn seaweedfs_accounts(policies: &[(S3Account, String)]) -> serde_json::Value {
    let account = |name: &str, account: S3Account, actions: &[&str], policy: Option<&str>| {
        let credentials =
            [serde_json::json!({"accessKey": account.access_key, "secretKey": account.secret_key})];
        serde_json::json!({"name": name, "credentials": credentials, "actions": actions,
            "policyNames": policy.into_iter().collect::<Vec<_>>()})
    };
    let mut identities = vec![
        account(
            "admin",
            ADMIN,
            &["Admin", "Read", "Write", "List", "Tagging"],
            None,
        ),
        account("writer", WRITER, &["Read", "Write", "List", "Tagging"], None),
        account("reader", READER, &["Read", "List"], None),
    ];
    identities.extend(policies.iter().map(|(with_policy, _)| {
        let name = with_policy.access_key;
        account(name, *with_policy, &[], Some(name))
    }));
    let policies: Vec<serde_json::Value> = policies
        .iter()
        .map(|(account, policy)| serde_json::json!({"name": account.access_key, "content": policy}))
        .collect();
    serde_json::json!({"identities": identities, "policies": policies})
}

fn seaweedfs(folder: &Path, ports: &[u16], policies: &[(S3Account, String)]) -> Command {
    let accounts = seaweedfs_accounts(policies);
    let accounts_file = folder.join("accounts.json");
    fs::write(&accounts_file, accounts.to_string())
        .unwrap_or_else(|error| panic!("{}: {error}", accounts_file.display()));
    let shown = folder.display();
    let mut command = Command::new(installed::weed());
    command.args([
        "-logtostderr=true",
        "server",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
    ]);
    command.arg(format!("-dir={shown}/data"));
    // It would report to its makers otherwise.
    command.args([
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=256",
        "-master.electionTimeout=1s",
    ]);
    command.args([
        "-volume.max=0",
        "-volume.preStopSeconds=0",
        "-filer",
        "-s3",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]);
    // As S3 itself does it.
    command.args([
        "-s3.autoCreateBucket=false",
        "-s3.allowDeleteBucketNotEmpty=false",
    ]);
    command.arg(format!("-s3.config={shown}/accounts.json"));
    command
        .arg(format!("-filer.localSocket={shown}/filer.sock"))
        .arg(format!("-s3.localSocket={shown}/s3.sock"));
    let parts = [
        "s3", "master", "master", "volume", "volume", "filer", "filer", "s3",
    ];
    let kinds = [
        "port",
        "port",
        "port.grpc",
        "port",
        "port.grpc",
        "port",
        "port.grpc",
        "port.grpc",
    ];
    for ((part, kind), port) in parts.iter().zip(kinds).zip(ports) {
        command.arg(format!("-{part}.{kind}={port}"));
    }
    command
}

fn azurite(folder: &Path, port: u16) -> Command {
    let mut command = Command::new(installed::node());
    command.arg(installed::azurite()).args([
        "--blobHost",
        "127.0.0.1",
        "--blobPort",
        &port.to_string(),
        "--location",
    ]);
    // It would report to its makers otherwise; and newer clients ask for versions that it does not know by name.
    command
        .arg(folder.join("data"))
        .args(["--disableTelemetry", "--silent", "--skipApiVersionCheck"]);
    command
}

fn rclone(folder: &Path, port: u16) -> Command {
    let mut command = Command::new(installed::rclone());
    command.args([
        "serve",
        "s3",
        "--config",
        "/dev/null",
        "--addr",
        &format!("127.0.0.1:{port}"),
        "--auth-key",
    ]);
    command
        .arg(format!("{},{}", ADMIN.access_key, ADMIN.secret_key))
        .arg(folder.join("data"));
    command
}

/// Sends a request without a body and returns what is answered; empty where nothing is.
fn http(port: u16, request: &str) -> String {
    let mut answer = Vec::new();
    if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
        let text = format!(
            "{request} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let asked = stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .and_then(|()| stream.write_all(text.as_bytes()));
        // What came before an error or the time limit is still looked at.
        let _ = asked.and_then(|()| stream.read_to_end(&mut answer));
    }
    String::from_utf8_lossy(&answer).into_owned()
}
