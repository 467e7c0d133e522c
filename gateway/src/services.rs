//! What a gateway stands before: services, each with a name, which may come and go.

use std::sync::Arc;

use layercake_node::service::Service;

/// A service with the name by which its messages are told apart from those of others.
#[derive(Clone)]
pub struct Named {
    /// The first segment of its paths: `/{name}/{Message}`. Empty where there is only the one.
    pub name: Arc<str>,
    /// It.
    pub service: Arc<dyn Service>,
}

/// The services that a gateway stands before.
///
/// It is asked at each request that finds its routes older than 50 ms, so that it should have its list at
/// hand. The order matters: of two services that have the same message, or the same path, the earlier
/// one has `/{Message}` and the path; the later one is reached by `/{name}/{Message}`. The same service
/// should be the same `Arc` each time.
pub trait Services: Send + Sync + 'static {
    /// All of them now.
    fn services(&self) -> Vec<Named>;

    /// A number that rises whenever the list, or what one of the services answers, has changed. The
    /// routes follow it at once, and the list is not asked for while it stays. Without one (the
    /// default) the list is looked at every 50 ms.
    fn generation(&self) -> Option<u64> {
        None
    }
}

/// A fixed list.
impl Services for Vec<Named> {
    fn services(&self) -> Vec<Named> {
        self.clone()
    }
}

/// Only one.
pub(crate) struct Only(pub(crate) Arc<dyn Service>);

impl Services for Only {
    fn services(&self) -> Vec<Named> {
        vec![Named { name: "".into(), service: self.0.clone() }]
    }
}
