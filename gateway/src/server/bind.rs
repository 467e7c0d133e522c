//! How a gateway comes by its listener: it binds, or takes the one of a gateway that runs.

use std::{io, net::SocketAddr};

use tokio::net::TcpListener;

use super::{
    handover::{self, Offer, Predecessor},
    tls::TlsError,
};
use crate::config::GatewayConfig;

/// Why a gateway cannot listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Something else listens there.
    #[error(
        "cannot listen on {listen}: the port is in use; choose another with `--listen`, or take over from a gateway of yours with `--take-over`"
    )]
    InUse {
        /// The address.
        listen: SocketAddr,
    },
    /// The port is below 1024 and the process may not use it.
    #[error("cannot listen on {listen}: not permitted; choose a port above 1023 with `--listen`")]
    NotPermitted {
        /// The address.
        listen: SocketAddr,
    },
    /// The address is not one of this host.
    #[error("cannot listen on {listen}: not an address of this host; choose one with `--listen`")]
    NotHere {
        /// The address.
        listen: SocketAddr,
    },
    /// A gateway is there to take over from, and did not hand over its listener.
    #[error(
        "cannot take over {listen} from the gateway that runs there; stop that one, or try again"
    )]
    NotHandedOver {
        /// The address.
        listen: SocketAddr,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error("cannot serve HTTPS on {listen}")]
    Tls {
        /// The address.
        listen: SocketAddr,
        /// Which file, and what is wrong with it.
        #[source]
        source: TlsError,
    },
    /// The file for the access log cannot be opened.
    #[error("cannot write the access log `{}`; choose another file", path.display())]
    AccessLog {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Anything else that the system says.
    #[error("cannot listen on {listen}")]
    Other {
        /// The address.
        listen: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl BindError {
    pub(super) fn new(listen: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { listen },
            io::ErrorKind::PermissionDenied => Self::NotPermitted { listen },
            io::ErrorKind::AddrNotAvailable => Self::NotHere { listen },
            _ => Self::Other { listen, source },
        }
    }
}

/// A listener, and who had it before or may have it next.
pub(super) struct Seat {
    pub(super) listener: TcpListener,
    /// Who serves until we say that we are ready.
    pub(super) predecessor: Option<Predecessor>,
    /// Where a successor asks for the listener.
    pub(super) offer: Option<Offer>,
}

/// Takes over where that is asked for and somebody is there, else binds.
pub(super) async fn seat(config: &GatewayConfig) -> Result<Seat, BindError> {
    let listen = config.listen;
    if config.take_over
        && let Some(folder) = &config.hand_over
    {
        let taken = handover::take(folder, listen).await;
        let taken = taken.map_err(|source| BindError::NotHandedOver { listen, source })?;
        if let Some((listener, offer, predecessor)) = taken {
            let (predecessor, offer) = (Some(predecessor), Some(offer));
            return Ok(Seat { listener, predecessor, offer });
        }
    }
    let failed = |source| BindError::new(listen, source);
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let local_addr = listener.local_addr().map_err(failed)?;
    // A gateway serves as well without successors, so that this is no reason not to.
    let offer = config.hand_over.as_ref().and_then(|folder| {
        Offer::new(folder, local_addr)
            .inspect_err(|error| {
                let folder = folder.display();
                tracing::warn!(%error, %folder, "this gateway's listener cannot be taken over");
            })
            .ok()
    });
    Ok(Seat { listener, predecessor: None, offer })
}
