//! Certificates for servers under test, made by the `openssl` program. Good for a day, for loopback only.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::run;

/// A certificate authority and one server certificate that it signed, for `localhost` and `127.0.0.1`.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// The authority's certificate (PEM): what a client trusts.
    pub authority: PathBuf,
    /// The server's certificate (PEM).
    pub certificate: PathBuf,
    /// The server's private key (PEM).
    pub key: PathBuf,
}

impl Certificates {
    /// Makes them in `folder`.
    pub fn make(folder: &Path) -> Certificates {
        let path = |name: &str| folder.join(name);
        let made = Certificates {
            authority: path("ca.pem"),
            certificate: path("cert.pem"),
            key: path("key.pem"),
        };
        let openssl = |arguments: &str| {
            run(Command::new("openssl")
                .current_dir(folder)
                .args(arguments.split(' ')));
        };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        openssl(&format!(
            "req -x509 {key} -days 1 -subj /CN=test-authority -keyout ca-key.pem -out ca.pem \
             -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign"
        ));
        openssl(&format!(
            "req -x509 {key} -days 1 -subj /CN=localhost -keyout key.pem -out cert.pem -CA ca.pem -CAkey ca-key.pem \
             -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE"
        ));
        made
    }
}
