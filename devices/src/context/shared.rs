//! Things of any type that are built once per device and shared by its leases: a set of pipelines, a table of
//! constants, the weights of a model that many actors read.

use std::any::{Any, type_name};
use std::sync::Arc;

use super::cache::{CacheError, OnceCache};
use super::{MAX_SHARED, SharedError};

/// What a device's leases share, by key.
pub(crate) struct Shared(OnceCache<Arc<dyn Any + Send + Sync>>);

impl Default for Shared {
    fn default() -> Self {
        Self(OnceCache::new(MAX_SHARED))
    }
}

impl Shared {
    /// The thing of `key`, made by `make` if it is not there, while others who ask for it wait.
    pub(crate) fn get_or_make<T: Any + Send + Sync, E>(
        &self,
        key: &str,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, SharedError<E>> {
        let reused = || SharedError::KeyReused { key: key.to_owned() };
        let made = self.0.get_or_make(key, &[type_name::<T>()], || {
            make().map(|made| Arc::new(made) as Arc<dyn Any + Send + Sync>)
        });
        match made {
            // Two types may have one name, so the name alone does not settle it.
            Ok(made) => made.downcast().map_err(|_| reused()),
            Err(CacheError::KeyReused) => Err(reused()),
            Err(CacheError::Make(error)) => Err(SharedError::Make(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_is_one_thing_of_one_type() {
        let shared = Shared::default();
        let first = shared.get_or_make("key", || Ok::<_, ()>(7u32)).unwrap();
        let again = shared.get_or_make("key", || Ok::<_, ()>(8u32)).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        let other = shared.get_or_make("key", || Ok::<_, ()>("text"));
        assert_eq!(other, Err(SharedError::KeyReused { key: "key".into() }));
        let failed = shared.get_or_make("other", || Err::<u32, _>("no"));
        assert_eq!(failed, Err(SharedError::Make("no")));
        assert_eq!(shared.get_or_make("other", || Ok::<_, &str>(1u32)), Ok(Arc::new(1)));
    }
}
