//! Publishing to a topic, whose items have the topic's type.

use std::fmt;

use quark_base::StreamId;

use super::error::PublishError;
use super::topic::Topic;
use crate::actor::ToKey;
use crate::grid::{Grid, Published};

/// The way to publish to a [`Topic`]. Cheap to clone.
pub struct Publisher<T> {
    grid: Grid,
    topic: Topic<T>,
}

impl Grid {
    /// The way to publish to `topic`: `grid.topic(&FRAMES).publish("cam-7", frame).await?`.
    pub fn topic<T>(&self, topic: &Topic<T>) -> Publisher<T> {
        Publisher { grid: self.clone(), topic: *topic }
    }
}

impl<T: Clone + Send + 'static> Publisher<T> {
    /// Publishes `item` to the topic's stream `key`, as [`Grid::publish`] does.
    ///
    /// # Errors
    /// [`PublishError`], as there; and when the key is empty or holds a slash.
    pub async fn publish(&self, key: impl ToKey, item: T) -> Result<Published, PublishError> {
        let stream = self.stream(key)?;
        self.grid.publish(&stream, item).await
    }

    /// Publishes several items to the topic's stream `key`, in their order, as [`Grid::publish_all`] does.
    ///
    /// # Errors
    /// [`PublishError`], as there; and when the key is empty or holds a slash.
    pub async fn publish_all(
        &self,
        key: impl ToKey,
        items: impl IntoIterator<Item = T>,
    ) -> Result<Published, PublishError> {
        let stream = self.stream(key)?;
        self.grid.publish_all(&stream, items).await
    }

    fn stream(&self, key: impl ToKey) -> Result<StreamId, PublishError> {
        Ok(key.with_key(|key| StreamId::new(self.topic.namespace(), key))?)
    }
}

impl<T> Clone for Publisher<T> {
    fn clone(&self) -> Self {
        Self { grid: self.grid.clone(), topic: self.topic }
    }
}

impl<T> fmt::Debug for Publisher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("topic", &self.topic).finish_non_exhaustive()
    }
}
