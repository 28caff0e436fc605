//! Starts real object stores on free loopback ports in temporary folders, and ends them when dropped.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to become ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The bucket or container every server starts with.
pub(crate) const BUCKET: &str = "holdfast-test";

/// A running server.
pub(crate) struct Server {
    child: Child,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Who may do what in SeaweedFS.
const SEAWEEDFS_IDENTITIES: &str = r#"{"identities":[
        {"name":"admin","credentials":[{"accessKey":"testkey","secretKey":"testsecret"}],
         "actions":["Admin","Read","Write","List","Tagging"]},
        {"name":"reader","credentials":[{"accessKey":"readkey","secretKey":"readsecret"}],"actions":["Read","List"]}]}"#;

/// SeaweedFS: keys `testkey`/`testsecret` (all rights) and `readkey`/`readsecret` (read and list).
pub(crate) fn seaweedfs() -> Server {
    let weed = required("HOLDFAST_SEAWEED_VENV", "bin/weed");
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    std::fs::write(dir.path().join("s3.json"), SEAWEEDFS_IDENTITIES).unwrap();
    let [
        s3,
        s3_grpc,
        master,
        master_grpc,
        volume,
        volume_grpc,
        filer,
        filer_grpc,
    ] = free_ports();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let child = Command::new(weed)
        .args([
            "-logtostderr=true",
            "server",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-filer",
            "-s3",
        ])
        .args([
            "-master.telemetry=false",
            "-master.volumeSizeLimitMB=256",
            "-master.electionTimeout=1s",
        ])
        .args([
            "-volume.max=0",
            "-volume.preStopSeconds=0",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
        ])
        .args([
            "-s3.autoCreateBucket=false",
            "-s3.allowDeleteBucketNotEmpty=false",
        ])
        .args([
            format!("-dir={}", path("data")),
            format!("-s3.config={}", path("s3.json")),
        ])
        .args([
            format!("-filer.localSocket={}", path("f")),
            format!("-s3.localSocket={}", path("s")),
        ])
        .args([format!("-s3.port={s3}"), format!("-s3.port.grpc={s3_grpc}")])
        .args([
            format!("-master.port={master}"),
            format!("-master.port.grpc={master_grpc}"),
        ])
        .args([
            format!("-volume.port={volume}"),
            format!("-volume.port.grpc={volume_grpc}"),
        ])
        .args([
            format!("-filer.port={filer}"),
            format!("-filer.port.grpc={filer_grpc}"),
        ])
        .stdin(Stdio::null())
        .stdout(log(dir.path()))
        .stderr(log(dir.path()))
        .spawn()
        .unwrap();
    let mut server = Server { child, dir, port: s3 };
    // Ready: the gateway answers and a volume server has joined, so that an upload would succeed.
    server.wait_until(|| request(s3, "GET", "/healthz", &[]).starts_with("HTTP/1.1 200"));
    server.wait_until(|| request(master, "GET", "/dir/assign", &[]).contains("\"fid\""));
    server.wait_until(|| {
        request(filer, "POST", &format!("/buckets/{BUCKET}/"), &[]).starts_with("HTTP/1.1 20")
    });
    server
}

/// `rclone serve s3` over a folder, with the keys `testkey`/`testsecret`: accepts conditions and does not keep them.
pub(crate) fn rclone() -> Server {
    let rclone = required("HOLDFAST_RCLONE", "");
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("data").join(BUCKET)).unwrap();
    let [port] = free_ports();
    let child = Command::new(rclone)
        .args([
            "serve",
            "s3",
            "--auth-key",
            "testkey,testsecret",
            "--addr",
            &format!("127.0.0.1:{port}"),
        ])
        .arg(dir.path().join("data"))
        .env("RCLONE_CONFIG", dir.path().join("none"))
        .stdin(Stdio::null())
        .stdout(log(dir.path()))
        .stderr(log(dir.path()))
        .spawn()
        .unwrap();
    let mut server = Server { child, dir, port };
    server.wait_until(|| request(port, "GET", "/", &[]).starts_with("HTTP/1.1 "));
    server
}

/// Account of the emulator, and its well-known key (<https://learn.microsoft.com/azure/storage/common/storage-use-azurite>).
pub(crate) const AZURITE_ACCOUNT: &str = "devstoreaccount1";
pub(crate) const AZURITE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Azurite with one container.
pub(crate) fn azurite() -> Server {
    let program = required(
        "HOLDFAST_AZURITE_DIR",
        "node_modules/azurite/dist/src/blob/main.js",
    );
    let dir = tempfile::tempdir().unwrap();
    let [port] = free_ports();
    let child = Command::new("node")
        .arg(program)
        .args([
            "--blobHost",
            "127.0.0.1",
            "--blobPort",
            &port.to_string(),
            "--disableTelemetry",
            "--silent",
        ])
        .args(["--skipApiVersionCheck", "--location"])
        .arg(dir.path().join("data"))
        .stdin(Stdio::null())
        .stdout(log(dir.path()))
        .stderr(log(dir.path()))
        .spawn()
        .unwrap();
    let mut server = Server { child, dir, port };
    server.wait_until(|| create_container(port).starts_with("HTTP/1.1 201"));
    server
}

/// `Create Container`, signed with the account's key
/// (<https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key>).
fn create_container(port: u16) -> String {
    use base64ct::{Base64, Encoding};
    use hmac::{Hmac, KeyInit, Mac};
    let (date, version) = (
        chrono::Utc::now().format("%a, %d %b %Y %H:%M:%S GMT").to_string(),
        "2021-08-06",
    );
    let path = format!("/{AZURITE_ACCOUNT}/{BUCKET}");
    let to_sign = format!(
        "PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:{version}\n/{AZURITE_ACCOUNT}{path}\nrestype:container"
    );
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&Base64::decode_vec(AZURITE_KEY).unwrap()).unwrap();
    mac.update(to_sign.as_bytes());
    let signature = Base64::encode_string(&mac.finalize().into_bytes());
    let headers = [
        ("x-ms-date", date),
        ("x-ms-version", version.to_owned()),
        (
            "Authorization",
            format!("SharedKey {AZURITE_ACCOUNT}:{signature}"),
        ),
    ];
    request(port, "PUT", &format!("{path}?restype=container"), &headers)
}

impl Server {
    /// Waits for readiness; panics with the server's log if it ends or takes too long.
    fn wait_until(&mut self, ready: impl Fn() -> bool) {
        let started = Instant::now();
        while !ready() {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && started.elapsed() < READY_WITHIN,
                "server did not start ({ended:?}):\n{}",
                std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The file `below` the folder that a variable names; the test fails if either is missing.
fn required(variable: &str, below: &str) -> PathBuf {
    let folder = std::env::var_os(variable)
        .unwrap_or_else(|| panic!("{variable} is not set: see tests/store/main.rs"));
    let path = if below.is_empty() {
        PathBuf::from(folder)
    } else {
        Path::new(&folder).join(below)
    };
    assert!(path.is_file(), "{variable}: {} does not exist", path.display());
    path
}

fn log(dir: &Path) -> Stdio {
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("log"))
        .unwrap();
    file.into()
}

/// Ports that were free a moment ago.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// One plain HTTP request; empty if nobody answers.
pub(crate) fn request(port: u16, method: &str, path: &str, headers: &[(&str, String)]) -> String {
    let exchange = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let headers: String = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\nConnection: close\r\n{headers}\r\n"
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    exchange().unwrap_or_default()
}
