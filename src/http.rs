//! The front door in one line: `node.http("127.0.0.1:5050").serve::<Xy>(pool).await`.

use std::{marker::PhantomData, net::SocketAddr, pin::pin, sync::Arc};

use layercake_gateway::{
    Allowed, BindError, Drained, FollowError, Gateway, GatewayConfig, MeshPage, Published,
};
use layercake_node::{
    Api, Message, Node,
    service::{Call, Reply, Serve, Service, Stream},
};
use tokio_util::sync::CancellationToken;

/// Why there is no front door.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The text is no address to listen on.
    #[error("`{text}` is no address to listen on: write IP:PORT, as in `127.0.0.1:5050`")]
    Address {
        /// What was given.
        text: String,
        /// What is wrong with it.
        #[source]
        cause: std::net::AddrParseError,
    },
    /// The address cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The service does not answer the message.
    #[error("the service does not answer `{0}`")]
    NotServed(&'static str),
    /// What is published cannot be followed.
    #[error("cannot serve what is published")]
    Follow(#[from] FollowError),
}

/// Front doors of a node.
pub trait NodeHttp {
    /// Begins a front door at an address, `127.0.0.1:5050` say; with port 0 the system picks one.
    fn http(&self, listen: &str) -> Http;
}

impl NodeHttp for Node {
    fn http(&self, listen: &str) -> Http {
        let config = listen
            .parse::<SocketAddr>()
            .map(|listen| {
                let mut config = GatewayConfig::new(listen);
                // A mesh in memory has no folder, and no other process either.
                config.hand_over = self.mesh().runtime_folder().ok();
                config
            })
            .map_err(|cause| HttpError::Address { text: listen.to_owned(), cause });
        Http { node: self.clone(), config }
    }
}

/// A front door that is being described.
#[must_use = "a front door opens with `serve`"]
pub struct Http {
    node: Node,
    config: Result<GatewayConfig, HttpError>,
}

impl Http {
    /// Changes the settings.
    pub fn configure(mut self, change: impl FnOnce(&mut GatewayConfig)) -> Self {
        if let Ok(config) = &mut self.config {
            change(config);
        }
        self
    }

    /// Says who is shown the mesh page at `/mesh`. Otherwise it is whoever is on this host, where the
    /// front door is on loopback, and nobody elsewhere.
    pub fn mesh_page(self, page: MeshPage) -> Self {
        self.configure(|config| config.mesh_page = page)
    }

    /// Serves one message of a pool, of an actor by its address, or of a function by
    /// [`from_fn`](layercake_node::service::from_fn), until the node is asked to stop, or another process
    /// has taken over the port with [`GatewayConfig::take_over`]; requests under way are finished first.
    ///
    /// # Errors
    /// [`HttpError`] when it cannot listen, or the service has no such message.
    pub async fn serve<M: Message>(self, service: impl Serve<M>) -> Result<(), HttpError> {
        let _ = self.bind::<M>(service).await?.run().await;
        Ok(())
    }

    /// Serves every message of a pool or another service, until the node is asked to stop.
    ///
    /// # Errors
    /// [`HttpError`] when it cannot listen.
    pub async fn serve_all(self, service: impl Service) -> Result<(), HttpError> {
        let _ = self.bind_all(service).await?.run().await;
        Ok(())
    }

    /// As [`serve_all`](Self::serve_all), in two steps: binds, so that the address is known.
    ///
    /// # Errors
    /// As [`serve_all`](Self::serve_all).
    pub async fn bind_all(self, service: impl Service) -> Result<Bound, HttpError> {
        let gateway = Gateway::bind(self.config?, Arc::new(service)).await?.on(self.node.clone());
        Ok(Bound { node: self.node, gateway })
    }

    /// As [`serve`](Self::serve), in two steps: binds, so that the address is known.
    ///
    /// # Errors
    /// As [`serve`](Self::serve).
    pub async fn bind<M: Message>(self, service: impl Serve<M>) -> Result<Bound, HttpError> {
        let (config, service) = (self.config?, service.into_service());
        if service.api().message(M::TAG).is_none() {
            return Err(HttpError::NotServed(M::NAME));
        }
        let only = Only::<_, M>(service, PhantomData);
        let gateway = Gateway::bind(config, Arc::new(only)).await?.on(self.node.clone());
        Ok(Bound { node: self.node, gateway })
    }

    /// Serves whatever is published and allowed, known to this program or not, from the moment it is
    /// published to that of its withdrawal, until the node is asked to stop.
    ///
    /// ```no_run
    /// # use layercake::prelude::*;
    /// # async fn front(node: Node) -> Result<()> {
    /// node.http("127.0.0.1:8080").serve_published(&Allowed::all(Scope::Lan)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`HttpError`] when it cannot listen, or not follow what is published.
    pub async fn serve_published(self, allowed: &Allowed) -> Result<(), HttpError> {
        let _ = self.bind_published(allowed).await?.run().await;
        Ok(())
    }

    /// As [`serve_published`](Self::serve_published), in two steps: binds, so that the address is known.
    ///
    /// # Errors
    /// As [`serve_published`](Self::serve_published).
    pub async fn bind_published(self, allowed: &Allowed) -> Result<Bound, HttpError> {
        let config = self.config?;
        let published = Published::follow(&self.node, allowed).await?;
        let gateway = Gateway::before(config, Arc::new(published)).await?.on(self.node.clone());
        Ok(Bound { node: self.node, gateway })
    }
}

/// A front door that listens.
pub struct Bound {
    node: Node,
    gateway: Gateway,
}

impl Bound {
    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.gateway.local_addr()
    }

    /// How its addresses begin: `http`, or `https` where it has a certificate.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        self.gateway.scheme()
    }

    /// Serves until the node is asked to stop, or until another process has taken over, and says how that went.
    pub async fn run(self) -> Drained {
        let stop = CancellationToken::new();
        let mut run = pin!(self.gateway.run(stop.clone()));
        let drained = tokio::select! {
            drained = &mut run => drained, // another process has the port
            () = self.node.stopping() => {
                stop.cancel();
                run.await
            }
        };
        if drained.unfinished > 0 {
            tracing::warn!(unfinished = drained.unfinished, "requests were cut off at the end");
        }
        drained
    }
}

/// One message of a service.
struct Only<S, M>(S, PhantomData<fn() -> M>);

impl<S: Service, M: Message> Service for Only<S, M> {
    fn api(&self) -> Api {
        let mut api = self.0.api();
        api.messages.retain(|message| message.tag() == M::TAG);
        api
    }

    fn is_ready(&self) -> bool {
        self.0.is_ready()
    }

    fn call(&self, call: Call) -> Reply<'_> {
        self.0.call(call)
    }

    fn stream(&self, call: Call) -> Stream<'_> {
        self.0.stream(call)
    }
}
