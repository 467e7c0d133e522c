//! The names of a node's actors: published, claimed, looked for.

use bytes::Bytes;
use layercake_directory::{
    Claim, NameError, NotPublished, NotSubscribed, Pattern, PatternError, Publication, Publish,
    Scope, Subscription,
};

use crate::{address::Address, message::Api, node::Node};

/// Why a name is not published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// It is not a name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The directory does not take it.
    #[error("cannot publish `{name}` at scope {scope}")]
    Directory {
        /// The name.
        name: String,
        /// The scope.
        scope: Scope,
        /// Why.
        #[source]
        cause: NotPublished,
    },
}

/// Why there is no subscription.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// It is not a pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// It is not a name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The directory does not take it.
    #[error("cannot subscribe to `{pattern}` at scope {scope}")]
    Directory {
        /// The pattern.
        pattern: String,
        /// The scope.
        scope: Scope,
        /// Why.
        #[source]
        cause: NotSubscribed,
    },
}

impl Node {
    /// Claims a name for one of this node's actors, as one of many instances of it. The record lives
    /// until the publication is dropped, or the node ends.
    ///
    /// # Errors
    /// [`PublishError`] says why: a name that is none, a scope that is not to be had, another holder.
    pub async fn publish<T: ?Sized>(
        &self,
        name: &str,
        address: &Address<T>,
        scope: Scope,
    ) -> Result<Publication, PublishError> {
        self.publish_as(name, address, scope, false).await
    }

    /// As [`publish`](Self::publish), as the only holder of the name within the scope.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub async fn publish_exclusive<T: ?Sized>(
        &self,
        name: &str,
        address: &Address<T>,
        scope: Scope,
    ) -> Result<Publication, PublishError> {
        self.publish_as(name, address, scope, true).await
    }

    /// As [`publish_exclusive`](Self::publish_exclusive), and gets in line where somebody else holds the
    /// name: of all that wait, on all hosts, who claimed first is granted it when its holder goes.
    /// Returns as soon as the claim is granted or in line.
    ///
    /// ```
    /// # extern crate layercake_node as layercake;
    /// # use layercake::{Node, NoMessages, Address, directory::Scope};
    /// # async fn lead(node: Node, leader: Address<NoMessages>) -> Result<(), Box<dyn std::error::Error>> {
    /// loop {
    ///     let claim = node.claim("textures:leader", &leader, Scope::Lan).await?;
    ///     let mut name = claim.granted().await?;
    ///     // … lead; what is written elsewhere goes with `name.record().fence` …
    ///     let holder = name.lost().await;
    ///     // After a partition somebody with an older claim goes on. Wait for it to end.
    ///     println!("{} leads", holder.address);
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`publish`](Self::publish), but for a name that is held.
    ///
    /// # Cancel safety
    /// Dropped before it is done, it withdraws the claim.
    pub async fn claim<T: ?Sized>(
        &self,
        name: &str,
        address: &Address<T>,
        scope: Scope,
    ) -> Result<Claim, PublishError> {
        let publish = Self::offer(name, address, scope, true)?;
        self.directory().claim(publish).await.map_err(refused(name, scope))
    }

    async fn publish_as<T: ?Sized>(
        &self,
        name: &str,
        address: &Address<T>,
        scope: Scope,
        exclusive: bool,
    ) -> Result<Publication, PublishError> {
        let publish = Self::offer(name, address, scope, exclusive)?;
        self.directory().publish(publish).await.map_err(refused(name, scope))
    }

    fn offer<T: ?Sized>(
        name: &str,
        address: &Address<T>,
        scope: Scope,
        exclusive: bool,
    ) -> Result<Publish, NameError> {
        let name = name.parse()?;
        let api = address.inlet().map_or_else(Api::default, |inlet| inlet.api());
        let meta = Bytes::from(serde_json::to_vec(&api).unwrap_or_default());
        Ok(Publish { name, scope, exclusive, actor: address.id().serial, meta })
    }

    /// Hears of all instances of the names that match a pattern, up to a scope.
    ///
    /// # Errors
    /// [`SubscribeError`] says what is wrong with the pattern or the scope.
    pub async fn subscribe(
        &self,
        pattern: &str,
        scope: Scope,
    ) -> Result<Subscription, SubscribeError> {
        self.subscribe_as(pattern.parse()?, pattern, scope).await
    }

    /// Hears of all instances of one name, up to a scope.
    ///
    /// # Errors
    /// [`SubscribeError`] says what is wrong with the name or the scope.
    pub async fn subscribe_to(
        &self,
        name: &str,
        scope: Scope,
    ) -> Result<Subscription, SubscribeError> {
        self.subscribe_as(Pattern::exactly(&name.parse()?), name, scope).await
    }

    async fn subscribe_as(
        &self,
        pattern: Pattern,
        shown: &str,
        scope: Scope,
    ) -> Result<Subscription, SubscribeError> {
        let failed = |cause| SubscribeError::Directory { pattern: shown.to_owned(), scope, cause };
        self.directory().subscribe(pattern, scope).await.map_err(failed)
    }
}

fn refused(name: &str, scope: Scope) -> impl FnOnce(NotPublished) -> PublishError {
    move |cause| PublishError::Directory { name: name.to_owned(), scope, cause }
}
