//! A mesh without a folder: authority, hosts and their keys in memory, for an in-memory network.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    TrustError,
    ca::{self, Signer},
    folder::{Inner, Mesh},
    verify,
};
use crate::id::{HostId, MeshId};

/// What stands for the folder of a mesh in memory. Below a file nothing can be made or read, whoever
/// tries.
pub(super) const NO_FOLDER: &str = "/dev/null/layer-cake-in-memory";

/// The authority of a mesh that nobody will find on a disk.
pub(crate) struct Authority {
    id: MeshId,
    signer: Signer,
}

impl Authority {
    /// Draws a name and a key.
    pub(crate) fn new() -> Result<Self, TrustError> {
        let name = format!("memory-{:08x}", rand::random::<u32>());
        let signer = Signer::authority(&name, SystemTime::now())?;
        let fingerprint = verify::fingerprint(&signer.cert);
        Ok(Self { id: MeshId { name: name.into(), fingerprint }, signer })
    }

    /// The membership of a host.
    pub(crate) fn admit(&self, host: HostId) -> Result<Mesh, TrustError> {
        let now = SystemTime::now();
        let signer = Signer::host(&self.signer, &self.id.name, host, now)?;
        Ok(Mesh(Arc::new(Inner {
            folder: PathBuf::from(NO_FOLDER),
            id: self.id.clone(),
            host,
            host_name: format!("memory-{}", host.short()),
            authority: self.signer.cert.clone(),
            signer,
            // To the second, as a certificate says it.
            expires: now + ca::HOST_LIFE - Duration::from_secs(1),
            holds_ca_key: false,
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;

    #[test]
    fn hosts_in_memory_prove_themselves_and_touch_no_disk() {
        let authority = Authority::new().unwrap();
        let (one, other) = (
            authority.admit(HostId::random()).unwrap(),
            authority.admit(HostId::random()).unwrap(),
        );
        assert_eq!(one.id(), other.id());
        assert!(one.host() != other.host() && one.is_in_memory());
        one.mint(NodeId::random()).unwrap();
        assert!(matches!(one.runtime_folder(), Err(TrustError::InMemory)));
        one.invite(Duration::from_secs(60), &[]).unwrap_err();
        assert!(!one.folder().exists());
    }
}
