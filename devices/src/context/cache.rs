//! Compiled once per device and shared: a bounded cache in which only one caller compiles a key and the others
//! wait for it.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// What was compiled, by key.
///
/// At the bound the entry used longest ago is forgotten; whoever still holds its value keeps it.
#[derive(Debug)]
pub(crate) struct OnceCache<V> {
    limit: usize,
    entries: Mutex<Entries<V>>,
}

#[derive(Debug)]
struct Entries<V> {
    uses: u64,
    by_key: HashMap<String, (u64, Arc<Entry<V>>)>,
}

#[derive(Debug)]
struct Entry<V> {
    /// What the value is made from, so that one key never stands for two sources.
    source: Vec<String>,
    /// Locked while it is being made, which is what makes the others wait.
    value: Mutex<Option<V>>,
}

/// Why the cache gives no value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CacheError<E> {
    /// The key is in use for another source.
    KeyReused,
    /// Making it failed; the next caller tries again.
    Make(E),
}

impl<V: Clone> OnceCache<V> {
    /// An empty cache for at most `limit` values.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, entries: Mutex::new(Entries { uses: 0, by_key: HashMap::new() }) }
    }

    /// The value of `key`, made by `make` if it is not there. `make` must not ask for the same key.
    pub(crate) fn get_or_make<E>(
        &self,
        key: &str,
        source: &[&str],
        make: impl FnOnce() -> Result<V, E>,
    ) -> Result<V, CacheError<E>> {
        let entry = self.entry(key, source);
        if entry.source != source {
            return Err(CacheError::KeyReused);
        }
        let mut value = entry.value.lock();
        if let Some(made) = &*value {
            return Ok(made.clone());
        }
        match make() {
            Ok(made) => {
                *value = Some(made.clone());
                Ok(made)
            }
            Err(error) => {
                drop(value);
                self.forget(key, &entry);
                Err(CacheError::Make(error))
            }
        }
    }

    /// How many values it holds, those being made included.
    pub(crate) fn len(&self) -> usize {
        self.entries.lock().by_key.len()
    }

    fn entry(&self, key: &str, source: &[&str]) -> Arc<Entry<V>> {
        let mut entries = self.entries.lock();
        entries.uses += 1;
        let use_number = entries.uses;
        if let Some((last_use, entry)) = entries.by_key.get_mut(key) {
            *last_use = use_number;
            return Arc::clone(entry);
        }
        if entries.by_key.len() >= self.limit {
            let oldest = entries.by_key.iter().min_by_key(|(_, (last_use, _))| *last_use);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                entries.by_key.remove(&oldest);
            }
        }
        let source = source.iter().map(|part| (*part).to_owned()).collect();
        let entry = Arc::new(Entry { source, value: Mutex::new(None) });
        entries.by_key.insert(key.to_owned(), (use_number, Arc::clone(&entry)));
        entry
    }

    /// Removes an entry that holds nothing, so that a bad source does not keep its key.
    fn forget(&self, key: &str, entry: &Arc<Entry<V>>) {
        let mut entries = self.entries.lock();
        let same = entries.by_key.get(key).is_some_and(|(_, known)| Arc::ptr_eq(known, entry));
        // Somebody else may be making it right now, or have made it; then it stays.
        let empty = entry.value.try_lock().is_some_and(|value| value.is_none());
        if same && empty {
            entries.by_key.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn many_callers_make_it_once() {
        const THREADS: usize = 8;
        let (cache, made, start) = (OnceCache::new(4), AtomicUsize::new(0), Barrier::new(THREADS));
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    start.wait();
                    let value = cache.get_or_make("key", &["source"], || {
                        thread::yield_now();
                        Ok::<_, ()>(made.fetch_add(1, Ordering::SeqCst))
                    });
                    assert_eq!(value, Ok(0));
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }

    #[test]
    fn one_key_never_stands_for_two_sources() {
        let cache = OnceCache::new(4);
        assert_eq!(cache.get_or_make("key", &["a", "b"], || Ok::<_, ()>(1)), Ok(1));
        assert_eq!(cache.get_or_make("key", &["ab"], || Ok::<_, ()>(2)), Err(CacheError::KeyReused));
    }

    #[test]
    fn a_failure_is_told_and_not_kept() {
        let cache = OnceCache::new(4);
        assert_eq!(cache.get_or_make("key", &["bad"], || Err("no")), Err(CacheError::Make("no")));
        assert_eq!(cache.len(), 0);
        assert_eq!(cache.get_or_make("key", &["good"], || Ok::<_, &str>(2)), Ok(2));
    }

    #[test]
    fn at_the_bound_the_least_recently_used_goes() {
        let cache = OnceCache::new(2);
        let get = |key: &str, value: i32| cache.get_or_make(key, &[], || Ok::<_, ()>(value));
        assert_eq!((get("a", 1), get("b", 2), get("a", 9)), (Ok(1), Ok(2), Ok(1)));
        assert_eq!(get("c", 3), Ok(3));
        assert_eq!(cache.len(), 2);
        assert_eq!((get("a", 9), get("b", 4)), (Ok(1), Ok(4)), "b was forgotten, a was not");
    }
}
