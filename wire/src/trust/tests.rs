//! Stories: a mesh on real folders, hosts that join over loopback QUIC, and those that cheat.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use proptest::prelude::*;
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use rustls::{client::danger::ServerCertVerifier, server::danger::ClientCertVerifier};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tempfile::TempDir;

use super::{
    ca::{self, Leaf, Signer},
    leaf::{Source, provider},
    verify::Verifier,
    *,
};
use crate::id::{HostId, NodeId, PeerId};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn new_mesh(name: &str) -> (TempDir, Mesh) {
    let dir = folder();
    let mesh = Mesh::init(dir.path(), Some(name)).unwrap();
    (dir, mesh)
}

// ---- the folder ----

#[test]
fn a_mesh_is_made_once_and_opens_again() {
    let dir = folder();
    let path = dir.path().join("some/where");
    assert!(matches!(Mesh::open(&path), Err(TrustError::Absent { .. })));
    let made = Mesh::init(&path, None).unwrap();
    assert!(made.id().name.starts_with("mesh-"));

    let opened = Mesh::open(&path).unwrap();
    assert_eq!((opened.id(), opened.host()), (made.id(), made.host()));
    assert_eq!(opened.host_name(), made.host_name());
    assert!(opened.holds_ca_key());
    let facts = opened.facts().unwrap();
    assert_eq!(facts.fingerprint.len(), 64);
    assert_eq!(facts.open_invites, 0);
    assert!(facts.host_expires > unix_seconds(SystemTime::now() + 300 * 24 * HOUR));

    let error = Mesh::init(&path, Some("other")).unwrap_err();
    assert!(error.to_string().contains(&*made.id().name), "{error}");
    assert_eq!(Mesh::open_or_init(&path).unwrap().id(), made.id());
    assert!(matches!(Mesh::init(&path, Some("No Good")), Err(TrustError::Name { .. })));
}

#[test]
fn nodes_that_start_at_once_end_up_in_one_mesh() {
    let dir = folder();
    let path = dir.path().join("mesh");
    let meshes: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| Mesh::open_or_init(&path))).collect();
        starts.into_iter().map(|start| start.join().unwrap().unwrap()).collect()
    });
    for mesh in &meshes {
        assert_eq!((mesh.id(), mesh.host()), (meshes[0].id(), meshes[0].host()));
    }
}

#[test]
fn a_making_that_was_cut_off_is_made_anew() {
    let (dir, first) = new_mesh("ours");
    fs::remove_file(dir.path().join("mesh.json")).unwrap();
    let again = Mesh::open_or_init(dir.path()).unwrap();
    assert_ne!(first.id().fingerprint, again.id().fingerprint);
}

#[test]
fn what_others_may_read_is_refused_with_the_cure() {
    let (dir, _mesh) = new_mesh("ours");
    let chmod = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    chmod(dir.path(), 0o750);
    for outcome in [Mesh::open(dir.path()), Mesh::open_or_init(dir.path())] {
        let error = outcome.unwrap_err();
        let cure = format!("type `chmod 700 {}`", dir.path().display());
        assert!(error.to_string().contains(&cure), "{error}");
    }
    // A folder fresh from `mkdir` is simply closed; one with something in it may be in use.
    let fresh = folder();
    chmod(fresh.path(), 0o755);
    Mesh::init(fresh.path(), None).unwrap();
    assert_eq!(fs::metadata(fresh.path()).unwrap().permissions().mode() & 0o777, 0o700);
    let used = folder();
    fs::write(used.path().join("photo.jpg"), "").unwrap();
    chmod(used.path(), 0o755);
    assert!(matches!(Mesh::init(used.path(), None), Err(TrustError::Exposed { .. })));

    chmod(dir.path(), 0o700);
    let key = dir.path().join("host.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    chmod(&key, 0o640);
    let error = Mesh::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("type `chmod 600 "), "{error}");
}

#[test]
fn a_damaged_folder_says_which_file() {
    let (dir, _mesh) = new_mesh("ours");
    let (other, _other) = new_mesh("ours");
    for (file, content) in [
        ("ca.pem", fs::read_to_string(other.path().join("ca.pem")).unwrap()),
        ("host.pem", fs::read_to_string(other.path().join("host.pem")).unwrap()),
        ("host.key", fs::read_to_string(other.path().join("host.key")).unwrap()),
        ("host.pem", "nonsense".to_owned()),
        ("mesh.json", "{}".to_owned()),
    ] {
        let path = dir.path().join(file);
        let sound = fs::read_to_string(&path).unwrap();
        fs::write(&path, content).unwrap();
        let error = Mesh::open(dir.path()).unwrap_err();
        assert!(matches!(error, TrustError::Damaged { .. }), "{file}: {error}");
        fs::write(&path, sound).unwrap();
    }
    assert!(Mesh::open(dir.path()).is_ok());
}

#[test]
fn the_runtime_folder_is_private_and_the_same_for_all() {
    let (dir, mesh) = new_mesh("ours");
    let runtime = mesh.runtime_folder().unwrap();
    assert_eq!(Mesh::open(dir.path()).unwrap().runtime_folder().unwrap(), runtime);
    assert_eq!(fs::metadata(&runtime).unwrap().permissions().mode() & 0o777, 0o700);
    fs::remove_dir(&runtime).unwrap();
}

// ---- who speaks for whom ----

/// What both verifiers and `peer_id` say to a chain.
fn judge(mesh: &Mesh, chain: &[CertificateDer<'static>], at: SystemTime) -> Result<PeerId, String> {
    let verifier = Verifier::new(mesh.id().clone(), mesh.authority(), provider()).unwrap();
    let at = UnixTime::since_unix_epoch(Duration::from_secs(unix_seconds(at)));
    let any = ServerName::try_from("any").unwrap();
    let as_server = verifier.verify_server_cert(&chain[0], &chain[1..], &any, &[], at).map(|_| ());
    let as_client = verifier.verify_client_cert(&chain[0], &chain[1..], at).map(|_| ());
    assert_eq!(as_server.is_ok(), as_client.is_ok(), "{as_server:?} {as_client:?}");
    as_server.map_err(|error| error.to_string())?;
    peer_id(mesh.id(), chain).map_err(|error| error.to_string())
}

fn authority(mesh: &Mesh) -> Signer {
    folder::read_authority(mesh.folder()).unwrap().unwrap()
}

fn chain(leaf: &Leaf, host: &Signer, authority: &Signer) -> Vec<CertificateDer<'static>> {
    vec![leaf.cert.clone(), host.cert.clone(), authority.cert.clone()]
}

#[test]
fn a_host_speaks_for_its_own_nodes_and_no_other() {
    let (_dir, mesh) = new_mesh("ours");
    let (now, node) = (SystemTime::now(), NodeId::from_bits(0xabc));
    let ca = authority(&mesh);
    let (rack2, victim) = (HostId::random(), mesh.host());
    let signer = Signer::host(&ca, "ours", rack2, now).unwrap();
    let leaf = |signer: &Signer, uri: String| signer.leaf(uri, now).unwrap();

    let honest = leaf(&signer, ca::node_uri("ours", rack2, node));
    let honest = chain(&honest, &signer, &ca);
    assert_eq!(judge(&mesh, &honest, now), Ok(PeerId { host: rack2, node }));
    assert!(judge(&mesh, &honest, now + 25 * HOUR).unwrap_err().contains("expired"));
    assert!(judge(&mesh, &honest, now - 25 * HOUR).is_err());

    // A leaf in the name of another host.
    let forged = leaf(&signer, ca::node_uri("ours", victim, node));
    let error = judge(&mesh, &chain(&forged, &signer, &ca), now).unwrap_err();
    assert!(error.contains(&format!("claims to be of host {victim}")), "{error}");

    // The same, beside the true certificate of that host, which is no secret.
    let true_chain = mesh.chain(forged.cert.clone());
    assert!(judge(&mesh, &true_chain, now).is_err());

    // A host certificate for the other host, signed by a host instead of the authority.
    let below = Signer::host(&signer, "ours", victim, now).unwrap();
    let deep = leaf(&below, ca::node_uri("ours", victim, node));
    assert!(judge(&mesh, &chain(&deep, &below, &ca), now).is_err());
    let mut long = chain(&deep, &below, &ca);
    long.insert(2, signer.cert.clone());
    assert!(judge(&mesh, &long, now).is_err());

    // The host certificate itself in the place of a leaf, and chains that are too short.
    let twice = vec![signer.cert.clone(), signer.cert.clone(), ca.cert.clone()];
    assert!(judge(&mesh, &twice, now).is_err());
    assert!(judge(&mesh, &honest[..2], now).is_err());
    assert!(judge(&mesh, &honest[..1], now).is_err());

    // Names that are nearly right.
    for uri in [
        format!("spiffe://ours/host/{rack2}"),
        format!("spiffe://theirs/host/{rack2}/node/{node}"),
        format!("spiffe://ours/host/{rack2}/node/{node}/"),
        format!("spiffe://ours/host/{rack2}/node/{}", node.to_string().to_uppercase()),
        format!("spiffe://ours/host/{victim}/host/{rack2}/node/{node}"),
        format!("https://ours/host/{rack2}/node/{node}"),
    ] {
        let odd = leaf(&signer, uri.clone());
        assert!(judge(&mesh, &chain(&odd, &signer, &ca), now).is_err(), "{uri}");
    }
}

#[test]
fn a_leaf_from_the_authority_itself_does_not_pass_beside_a_host_certificate() {
    let (_dir, mesh) = new_mesh("ours");
    let (now, ca) = (SystemTime::now(), authority(&mesh));
    let direct = ca.leaf(ca::node_uri("ours", mesh.host(), NodeId::random()), now).unwrap();
    let error = judge(&mesh, &mesh.chain(direct.cert), now).unwrap_err();
    assert!(error.contains("not issued by the host certificate"), "{error}");
}

#[test]
fn a_mesh_of_the_same_name_is_another_mesh() {
    let (_dir, ours) = new_mesh("ours");
    let (_dir2, theirs) = new_mesh("ours");
    let now = SystemTime::now();
    let stranger = theirs.chain(theirs.leaf(NodeId::random(), now).unwrap().cert);
    assert!(judge(&theirs, &stranger, now).is_ok());
    assert!(judge(&ours, &stranger, now).unwrap_err().contains("certificate authority is"));

    // With our authority, which is no secret, put in the place of theirs.
    let mut disguised = stranger;
    disguised[2] = ours.authority().clone();
    assert!(judge(&ours, &disguised, now).is_err());
}

#[test]
fn a_node_that_runs_for_days_presents_a_valid_leaf() {
    let (_dir, mesh) = new_mesh("ours");
    let (start, node) = (SystemTime::now(), NodeId::random());
    let source = Source::new(&mesh, node, start).unwrap();
    let first = source.key_at(start);
    assert_eq!(source.key_at(start + HOUR).cert, first.cert);
    for hours in (0..72).step_by(7) {
        let at = start + hours * HOUR;
        let chain = source.key_at(at).cert.clone();
        assert_eq!(judge(&mesh, &chain, at), Ok(PeerId { host: mesh.host(), node }), "{hours} h");
    }

    // Another mesh in the same folder is not ours to speak for.
    fs::remove_dir_all(mesh.folder()).unwrap();
    Mesh::init(mesh.folder(), None).unwrap();
    let later = start + 100 * HOUR;
    let stale = source.key_at(later).cert.clone();
    assert!(judge(&mesh, &stale, later).unwrap_err().contains("expired"));
}

#[test]
fn a_request_is_not_read_as_a_certificate() {
    let (_, request) = ca::request().unwrap();
    assert!(ca::cert_from_pem(&request).is_none());
    assert!(ca::requested_key(&request).is_some());
    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let other = rcgen::CertificateParams::default().serialize_request(&p384).unwrap();
    assert!(ca::requested_key(&other.pem().unwrap()).is_none());
}

fn a_chain() -> &'static (Mesh, Vec<CertificateDer<'static>>) {
    static CHAIN: std::sync::OnceLock<(Mesh, Vec<CertificateDer<'static>>)> =
        std::sync::OnceLock::new();
    CHAIN.get_or_init(|| {
        let (_dir, mesh) = new_mesh("ours");
        let leaf = mesh.leaf(NodeId::random(), SystemTime::now()).unwrap();
        (mesh.clone(), mesh.chain(leaf.cert))
    })
}

proptest! {
    #[test]
    fn any_bytes_get_an_answer(
        chain in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..5),
    ) {
        let (mesh, _) = a_chain();
        let chain: Vec<CertificateDer<'static>> = chain.into_iter().map(Into::into).collect();
        prop_assert!(peer_id(mesh.id(), &chain).is_err());
    }

    #[test]
    fn a_changed_certificate_gets_an_answer_and_never_another_host(
        which in 0usize..3, at in 0usize..2000, byte: u8, cut in 0usize..2000,
    ) {
        let (mesh, sound) = a_chain();
        let mut chain = sound.clone();
        let mut der = chain[which].to_vec();
        let at = at % der.len();
        der[at] = byte;
        if cut < 100 {
            der.truncate(der.len() - cut);
        }
        let changed = der != sound[which].to_vec();
        chain[which] = der.into();
        // The names are checked without signatures here; the signatures hold the rest.
        let _ = peer_id(mesh.id(), &chain);
        prop_assert_eq!(judge(mesh, &chain, SystemTime::now()).is_ok(), !changed);
    }
}

// ---- joining ----

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// A node of a host: accepts joins and greets links, until dropped.
struct Door {
    addr: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Door {
    fn open(mesh: &Mesh) -> Self {
        let tls = mesh.mint(NodeId::random()).unwrap();
        let crypto = QuicServerConfig::try_from(tls.server).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let endpoint = quinn::Endpoint::server(config, loopback()).unwrap();
        let addr = endpoint.local_addr().unwrap();
        let mesh = mesh.clone();
        let task = tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let mesh = mesh.clone();
                tokio::spawn(async move {
                    let Ok(connection) = incoming.await else { return };
                    let data = connection.handshake_data().unwrap();
                    let data = data.downcast::<HandshakeData>().unwrap();
                    if data.protocol.as_deref() == Some(ALPN_JOIN) {
                        let _ = answer_join(&mesh, connection).await;
                    } else if let Some(peer) = peer_of(&mesh, &connection) {
                        let mut greeting = connection.open_uni().await.unwrap();
                        greeting.write_all(peer.to_string().as_bytes()).await.unwrap();
                        greeting.finish().unwrap();
                        connection.closed().await;
                    } else {
                        connection.close(1u32.into(), b"who are you");
                    }
                });
            }
        });
        Self { addr, task }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn peer_of(mesh: &Mesh, connection: &quinn::Connection) -> Option<PeerId> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    peer_id(mesh.id(), &chain).ok()
}

/// Dials a door; gives who answered and whom it greeted.
async fn visit(
    mesh: &Mesh,
    client: Arc<rustls::ClientConfig>,
    to: SocketAddr,
) -> Result<(PeerId, String), String> {
    let crypto = QuicClientConfig::try_from(client).unwrap();
    let endpoint = quinn::Endpoint::client(loopback()).unwrap();
    let connection = endpoint
        .connect_with(quinn::ClientConfig::new(Arc::new(crypto)), to, "any")
        .unwrap()
        .await
        .map_err(|error| error.to_string())?;
    let mut greeting = connection.accept_uni().await.map_err(|error| error.to_string())?;
    let text = greeting.read_to_end(100).await.map_err(|error| error.to_string())?;
    Ok((peer_of(mesh, &connection).unwrap(), String::from_utf8(text).unwrap()))
}

#[tokio::test]
async fn a_host_joins_with_a_token_and_both_know_each_other() {
    let (_dir, first) = new_mesh("ours");
    let door = Door::open(&first);
    let token = first.invite(MINUTE, &[door.addr]).unwrap();
    let token: Token = token.to_string().parse().unwrap(); // copied from one terminal to another

    let dir = folder();
    let path = dir.path().join("second");
    let second = join(&token, &path, Some("rack2")).await.unwrap();
    assert_eq!(second.id(), first.id());
    assert_ne!(second.host(), first.host());
    assert_eq!(second.host_name(), "rack2");
    assert!(!second.holds_ca_key());
    assert_eq!(Mesh::open(&path).unwrap().host(), second.host());
    assert_eq!(first.invite_state(token.invite).unwrap(), InviteState::Used);

    let node = NodeId::random();
    let tls = second.mint(node).unwrap();
    let (server, greeting) = visit(&second, tls.client, door.addr).await.unwrap();
    assert_eq!(server.host, first.host());
    assert_eq!(greeting, PeerId { host: second.host(), node }.to_string());

    // The new host cannot invite, and says where to look.
    let error = second.invite(MINUTE, &[]).unwrap_err();
    assert!(matches!(error, InviteError::NoKey { .. }));
    assert!(error.to_string().contains("layer-cake mesh show"), "{error}");

    // A member joins nothing else, and the token is not even spent.
    let another = first.invite(MINUTE, &[door.addr]).unwrap();
    let error = join(&another, &path, None).await.unwrap_err();
    assert!(error.to_string().contains(&format!("remove the folder {}", path.display())));
    assert_eq!(first.invite_state(another.invite).unwrap(), InviteState::Open);
}

#[tokio::test]
async fn a_token_lets_one_host_in() {
    let (_dir, first) = new_mesh("ours");
    let (door, other_door) = (Door::open(&first), Door::open(&first));
    let token = first.invite(MINUTE, &[door.addr, other_door.addr]).unwrap();
    let dir = folder();
    let paths: Vec<_> = (0..4).map(|n| dir.path().join(n.to_string())).collect();
    let outcomes =
        futures_util::future::join_all(paths.iter().map(|path| join(&token, path, None))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    for (outcome, path) in outcomes.iter().zip(&paths) {
        if let Err(error) = outcome {
            assert!(matches!(error, JoinError::Refused(Refusal::Unknown)), "{error}");
            assert!(matches!(Mesh::open(path), Err(TrustError::Absent { .. })));
        }
    }
}

#[tokio::test]
async fn a_token_that_ran_out_is_refused_on_both_sides() {
    let (_dir, first) = new_mesh("ours");
    let door = Door::open(&first);
    let long_ago = SystemTime::now() - HOUR;
    let mut token = first.invite_at(MINUTE, &[door.addr], long_ago).unwrap();
    let dir = folder();
    assert!(matches!(join(&token, dir.path(), None).await, Err(JoinError::Expired)));
    // A joiner with a slow clock, or one that changed the token, is told by the issuer.
    token.expires = SystemTime::now() + HOUR;
    let error = join(&token, dir.path(), None).await.unwrap_err();
    assert!(matches!(error, JoinError::Refused(Refusal::Expired)), "{error}");
}

#[tokio::test]
async fn the_secret_goes_to_nobody_but_the_issuer() {
    let (_dir, first) = new_mesh("ours");
    let (_dir2, stranger) = new_mesh("ours");
    let (door, trap) = (Door::open(&first), Door::open(&stranger));
    let dir = folder();

    // Somebody else answers at the address: another authority.
    let mut token = first.invite(MINUTE, &[trap.addr]).unwrap();
    let error = join(&token, dir.path(), None).await.unwrap_err();
    let JoinError::Unreachable { tried, .. } = &error else { panic!("{error}") };
    assert!(tried[0].1.contains("certificate authority is"), "{error}");

    // The right mesh, another host of it.
    token.issuer = HostId::random();
    let error = join_with(&token, &[door.addr], dir.path(), None).await.unwrap_err();
    assert!(error.to_string().contains(&format!("not host {}", token.issuer)), "{error}");

    // Both the trap and the issuer answer: the trap is passed over.
    token.issuer = first.host();
    join_with(&token, &[door.addr], dir.path(), None).await.unwrap();
}

#[tokio::test]
async fn a_dial_that_fails_says_why_for_each_address() {
    let (_dir, first) = new_mesh("ours");
    let dir = folder();
    let token = first.invite(MINUTE, &[]).unwrap();
    let error = join(&token, dir.path(), None).await.unwrap_err();
    assert!(matches!(error, JoinError::NoAddress(host) if host == first.host()), "{error}");

    let silent = std::net::UdpSocket::bind(loopback()).unwrap(); // bound, and nobody reads
    let addrs = [silent.local_addr().unwrap(), "0.0.0.0:0".parse().unwrap()];
    let error = join_with(&token, &addrs, dir.path(), None).await.unwrap_err();
    for addr in addrs {
        assert!(error.to_string().contains(&addr.to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_wrong_secret_or_a_lost_key_admits_nobody() {
    let (_dir, first) = new_mesh("ours");
    let door = Door::open(&first);
    let dir = folder();
    let token = first.invite(MINUTE, &[door.addr]).unwrap();
    let guess = Token { secret: [0; 16], ..token.clone() };
    let error = join(&guess, dir.path(), None).await.unwrap_err();
    assert!(matches!(error, JoinError::Refused(Refusal::Unknown)), "{error}");

    fs::rename(first.folder().join("ca.key"), first.folder().join("elsewhere")).unwrap();
    let error = join(&token, dir.path(), None).await.unwrap_err();
    assert!(matches!(error, JoinError::Refused(Refusal::NoKey)), "{error}");
    fs::rename(first.folder().join("elsewhere"), first.folder().join("ca.key")).unwrap();
    join(&token, dir.path(), None).await.unwrap(); // nothing of this spent the token
}

#[tokio::test]
async fn a_question_that_never_ends_is_cut_off() {
    let (_dir, first) = new_mesh("ours");
    let door = Door::open(&first);
    let provider = provider();
    let pinned = Verifier::pinned(first.id().clone(), first.host(), provider.clone());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned))
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN_JOIN.to_vec()];
    let crypto = QuicClientConfig::try_from(tls.clone()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let endpoint = quinn::Endpoint::client(loopback()).unwrap();
    let connection = endpoint.connect_with(config, door.addr, "any").unwrap().await.unwrap();
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    let _ = send.write_all(&vec![b' '; MAX_JOIN_BYTES * 2]).await;
    let closed = tokio::time::timeout(JOIN_TIME_LIMIT / 2, connection.closed()).await;
    assert!(matches!(closed, Ok(quinn::ConnectionError::ApplicationClosed(_))), "{closed:?}");

    // Without a certificate there is no link either.
    tls.alpn_protocols = vec![ALPN_LINK.to_vec()];
    let error = visit(&first, Arc::new(tls), door.addr).await.unwrap_err();
    assert!(error.contains("who are you"), "{error}");
}

#[tokio::test]
async fn a_node_of_another_mesh_gets_no_link() {
    let (_dir, ours) = new_mesh("ours");
    let (_dir2, theirs) = new_mesh("ours");
    let door = Door::open(&ours);
    let tls = theirs.mint(NodeId::random()).unwrap();
    let error = visit(&theirs, tls.client, door.addr).await.unwrap_err();
    assert!(error.contains("certificate authority is"), "{error}");
}
