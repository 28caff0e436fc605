//! Connecting: TLS, and every way of proving an account that the servers here have.

use holdfast_agent::wire::{ConnectOptions, Connection, Endpoint, TlsMode, WireError};
use holdfast_proto::Flavour;

use super::server::Server;

async fn error(options: &ConnectOptions) -> WireError {
    match Connection::connect(options).await {
        Ok(_) => panic!("{} was let in", options.user),
        Err(error) => error,
    }
}

/// Connects, proves that a query works, and returns who the server says we are.
async fn who(options: &ConnectOptions) -> String {
    let mut connection = Connection::connect(options).await.unwrap();
    let rows = connection.query("SELECT CURRENT_USER() AS me").await.unwrap();
    let me = rows.one().unwrap().str("me").unwrap();
    connection.close().await;
    me
}

/// What holds for any account and both families.
async fn tls_is_verified(server: &Server, user: &str) {
    let verified = server.tcp(server.verify("ca"), user, "secret");
    assert!(Connection::connect(&verified).await.unwrap().is_tls());

    let wrong_authority = server.tcp(server.verify("other"), user, "secret");
    assert!(matches!(error(&wrong_authority).await, WireError::Tls(_)));

    let mut wrong_name = verified.clone();
    wrong_name.endpoint = Endpoint::Tcp {
        host: "127.0.0.1".into(),
        port: server.port,
    };
    assert!(
        matches!(error(&wrong_name).await, WireError::Tls(_)),
        "the certificate names localhost only"
    );
    let TlsMode::Verify { ca_file, .. } = server.verify("ca") else {
        panic!()
    };
    wrong_name.tls = TlsMode::Verify {
        ca_file,
        server_name: Some("localhost".into()),
    };
    assert_eq!(who(&wrong_name).await, format!("{user}@%"));

    let system = server.tcp(
        TlsMode::Verify {
            ca_file: None,
            server_name: None,
        },
        user,
        "secret",
    );
    assert!(
        matches!(error(&system).await, WireError::Tls(_)),
        "no system authority signed it"
    );
    assert_eq!(
        who(&server.tcp(TlsMode::InsecureUnverified, user, "secret")).await,
        format!("{user}@%")
    );
    assert!(matches!(
        error(&server.tcp(TlsMode::UnixSocketOnly, user, "secret")).await,
        WireError::Tls(_)
    ));

    let denied = error(&server.tcp(server.verify("ca"), user, "wrong")).await;
    assert!(
        matches!(&denied, WireError::Auth(text) if text.contains("1045")),
        "{denied}"
    );
    assert!(!denied.is_transient());
    let mut database = verified.clone();
    database.database = Some("no_such_database".into());
    let unknown = error(&database).await;
    assert!(
        matches!(
            unknown,
            WireError::Auth(_)
                | WireError::Server {
                    code: 1044 | 1049,
                    ..
                }
        ),
        "{unknown}"
    );
}

async fn what_the_server_knows_of_us(server: &Server) {
    let mut connection = server.connect().await;
    assert_eq!(connection.flavour(), server.flavour);
    let row = connection
        .query("SELECT CONNECTION_ID() AS id, VERSION() AS version, NULL AS nothing, '' AS blank")
        .await
        .unwrap();
    let row = row.one().unwrap();
    assert_eq!(row.u64("id").unwrap(), connection.connection_id());
    assert_eq!(row.str("version").unwrap(), connection.version());
    assert_eq!((row.field("nothing"), row.field("blank")), (None, Some(&b""[..])));
    connection.close().await;
}

#[tokio::test]
async fn mariadb_accounts_and_tls() {
    let server = Server::start(Flavour::MariaDb, &["--performance-schema=ON"]).await;
    let mut root = server.connect().await;
    root.execute("INSTALL SONAME 'auth_ed25519'").await.unwrap();
    root.execute("CREATE USER native@'%' IDENTIFIED BY 'secret'")
        .await
        .unwrap();
    root.execute("CREATE USER ed@'%' IDENTIFIED VIA ed25519 USING PASSWORD('secret')")
        .await
        .unwrap();
    root.execute("CREATE USER nopass@'%'").await.unwrap();
    root.execute("CREATE USER old@'%' IDENTIFIED VIA mysql_old_password")
        .await
        .unwrap();

    let mut users = vec!["native", "ed"];
    if !root.version().starts_with("10.") {
        // The plugin came with 11.6.
        root.execute("INSTALL SONAME 'auth_parsec'").await.unwrap();
        root.execute("CREATE USER par@'%' IDENTIFIED VIA parsec USING PASSWORD('secret')")
            .await
            .unwrap();
        users.push("par");
    }

    what_the_server_knows_of_us(&server).await;
    for user in users {
        tls_is_verified(&server, user).await;
        let mut over_socket = server.root();
        over_socket.user = user.into();
        over_socket.password = Some(holdfast_agent::wire::Password::new("secret"));
        assert_eq!(who(&over_socket).await, format!("{user}@%"));
    }
    assert_eq!(
        who(&server.tcp(TlsMode::InsecurePlaintext, "native", "secret")).await,
        "native@%"
    );
    assert_eq!(
        who(&server.tcp(server.verify("ca"), "nopass", "")).await,
        "nopass@%"
    );
    assert!(matches!(
        error(&server.tcp(server.verify("ca"), "old", "secret")).await,
        WireError::Auth(_)
    ));

    root.execute("ALTER USER root@localhost IDENTIFIED VIA unix_socket")
        .await
        .unwrap();
    assert_eq!(who(&server.root()).await, "root@localhost");
    let attribute = "SELECT ATTR_VALUE v FROM performance_schema.session_connect_attrs
         WHERE PROCESSLIST_ID = CONNECTION_ID() AND ATTR_NAME = 'program_name'";
    let rows = server.connect().await.query(attribute).await.unwrap();
    assert_eq!(rows.one().unwrap().str("v").unwrap(), "holdfast-test");
}

#[tokio::test]
async fn mysql_accounts_and_tls() {
    let server = Server::start(Flavour::MySql, &[]).await;
    let mut root = server.connect().await;
    root.execute("CREATE USER sha@'%' IDENTIFIED WITH caching_sha2_password BY 'secret'")
        .await
        .unwrap();
    root.execute(
        "CREATE USER lengthy@'%' IDENTIFIED BY 'a longer password than one SHA-256 block, with ünïcode'",
    )
    .await
    .unwrap();
    what_the_server_knows_of_us(&server).await;
    tls_is_verified(&server, "sha").await;

    let mut over_socket = server.root();
    over_socket.user = "sha".into();
    over_socket.password = Some(holdfast_agent::wire::Password::new("secret"));
    // Each of these gets the full authentication first (the cache is empty) and the fast one after it.
    for options in [
        server.tcp(server.verify("ca"), "sha", "secret"),
        over_socket,
        server.tcp(TlsMode::InsecurePlaintext, "sha", "secret"),
        server.tcp(TlsMode::InsecureUnverified, "sha", "secret"),
    ] {
        root.execute("FLUSH PRIVILEGES").await.unwrap();
        assert_eq!(who(&options).await, "sha@%", "full authentication");
        assert_eq!(who(&options).await, "sha@%", "fast authentication");
        let mut wrong = options.clone();
        wrong.password = Some(holdfast_agent::wire::Password::new("wrong"));
        assert!(matches!(error(&wrong).await, WireError::Auth(_)));
    }
    root.execute("FLUSH PRIVILEGES").await.unwrap();
    let long = "a longer password than one SHA-256 block, with ünïcode";
    assert_eq!(
        who(&server.tcp(TlsMode::InsecurePlaintext, "lengthy", long)).await,
        "lengthy@%"
    );
    let too_long = "x".repeat(250);
    let refused = error(&server.tcp(TlsMode::InsecurePlaintext, "lengthy", &too_long)).await;
    assert!(matches!(refused, WireError::Auth(_)), "{refused}");

    let attribute = "SELECT ATTR_VALUE v FROM performance_schema.session_connect_attrs
         WHERE PROCESSLIST_ID = CONNECTION_ID() AND ATTR_NAME = 'program_name'";
    let rows = root.query(attribute).await.unwrap();
    assert_eq!(rows.one().unwrap().str("v").unwrap(), "holdfast-test");
}

#[tokio::test]
async fn a_server_without_tls_is_refused_before_anything_is_said() {
    let extra: &[&str] = &["--skip-ssl"];
    let server = Server::start(Flavour::MariaDb, extra).await;
    let mut root = server.connect().await;
    root.execute("CREATE USER native@'%' IDENTIFIED BY 'secret'")
        .await
        .unwrap();
    for tls in [server.verify("ca"), TlsMode::InsecureUnverified] {
        let refused = error(&server.tcp(tls, "native", "secret")).await;
        assert!(
            matches!(&refused, WireError::Tls(text) if text.contains("no TLS")),
            "{refused}"
        );
    }
    assert_eq!(
        who(&server.tcp(TlsMode::InsecurePlaintext, "native", "secret")).await,
        "native@%"
    );
}
