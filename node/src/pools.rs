//! The pools of a node, and those of the whole mesh, for whoever looks at them.

use std::sync::{Arc, Weak};

use layercake_directory::{About, Network, NoNetwork};
use layercake_wire::id::{HostId, NodeId};
use parking_lot::Mutex;
use serde::Serialize;

use crate::{node::Node, pool::PoolStatus, story::story_of};

/// Pools of one node that are shown.
const MAX_POOLS: usize = 64;

/// Something that shows pools: one, or one for each API of its members.
pub(crate) trait Shown: Send + Sync {
    /// Nothing, when it has ended.
    fn show(&self) -> Vec<PoolStatus>;
}

/// The pools of one node.
#[derive(Default)]
pub(crate) struct Pools(Mutex<Vec<Weak<dyn Shown>>>);

impl Pools {
    pub(crate) fn add(&self, pool: Weak<dyn Shown>) {
        let mut all = self.0.lock();
        // Those that are gone make place.
        all.retain(|pool| pool.strong_count() > 0);
        all.push(pool);
    }

    pub(crate) fn show(&self) -> Vec<PoolStatus> {
        let pools: Vec<Arc<dyn Shown>> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
        pools.iter().flat_map(|pool| pool.show()).take(MAX_POOLS).collect()
    }
}

/// A pool somewhere in the mesh.
#[derive(Debug, Clone, Serialize)]
pub struct MeshPool {
    /// Its host.
    #[serde(serialize_with = "as_text")]
    pub host: HostId,
    /// What that host calls itself.
    pub host_name: String,
    /// The node that it distributes requests of.
    #[serde(serialize_with = "as_text")]
    pub node: NodeId,
    /// What that node says about itself.
    pub about: About,
    /// The pool.
    #[serde(flatten)]
    pub pool: PoolStatus,
}

fn as_text<T: ToString, S: serde::Serializer>(id: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&id.to_string())
}

/// The pools that the nodes of a picture of the mesh tell of, by name, host and node. What a node tells that
/// is not understood is passed over.
#[must_use]
pub fn pools_of(network: &Network) -> Vec<MeshPool> {
    let mut all: Vec<MeshPool> = network
        .nodes()
        .filter(|(_, node)| !node.story.is_empty())
        .flat_map(|(host, node)| {
            story_of(node).pools.into_iter().map(|pool| MeshPool {
                host: host.host,
                host_name: host.name.clone(),
                node: node.node,
                about: node.about.clone(),
                pool,
            })
        })
        .collect();
    let key =
        |pool: &MeshPool| (pool.pool.name.clone(), pool.host_name.clone(), pool.host, pool.node);
    all.sort_by_cached_key(key);
    all
}

impl Node {
    /// The pools of this node, as they are now.
    #[must_use]
    pub fn own_pools(&self) -> Vec<PoolStatus> {
        self.pool_registry().show()
    }

    /// The pools of the whole mesh, as far as their nodes answer within a second, by name; see
    /// [`network`](Self::network), of which this is a part, and [`pools_of`].
    ///
    /// # Errors
    /// [`NoNetwork`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn pools(&self) -> Result<Vec<MeshPool>, NoNetwork> {
        Ok(pools_of(&self.network().await?))
    }
}
