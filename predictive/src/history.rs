//! What has been seen, per stream and key: the raw material of predictors.
//!
//! Bounded twice: each key keeps its last [`MAX_EVENTS_PER_KEY`] events, and the history keeps the
//! [`MAX_KEYS`] keys that were seen most recently. At the bounds the oldest goes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

/// Events kept per key. Enough to see a rhythm: 32 intervals give its median within a few percent.
pub const MAX_EVENTS_PER_KEY: usize = 32;

/// Keys kept in all. At some 600 bytes a full key this is 40 MB.
pub const MAX_KEYS: usize = 65_536;

/// Recent events per stream namespace and key. See the [module](self) for its bounds.
#[derive(Clone, Debug)]
pub struct History<K> {
    tracks: HashMap<(Arc<str>, K), Track>,
    /// When each track was touched last, as a running number: the first is the one to forget.
    by_age: BTreeMap<u64, (Arc<str>, K)>,
    next_touch: u64,
    max_keys: usize,
}

#[derive(Clone, Debug)]
struct Track {
    events: VecDeque<Duration>,
    touch: u64,
}

impl<K: Clone + Eq + Hash> Default for History<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Clone + Eq + Hash> History<K> {
    /// An empty history of at most [`MAX_KEYS`] keys.
    pub fn new() -> Self {
        Self::with_max_keys(MAX_KEYS)
    }

    /// An empty history of at most `max_keys` keys; more than [`MAX_KEYS`] counts as that many, none as one.
    pub fn with_max_keys(max_keys: usize) -> Self {
        let max_keys = max_keys.clamp(1, MAX_KEYS);
        Self { tracks: HashMap::new(), by_age: BTreeMap::new(), next_touch: 0, max_keys }
    }

    /// Notes an event on `stream` for `key`. An event older than the key's last one counts as simultaneous
    /// with it, so that a track is always sorted.
    pub fn observe(&mut self, stream: &str, key: &K, at: Duration) {
        let id = (Arc::<str>::from(stream), key.clone());
        let touch = self.next_touch;
        self.next_touch += 1;
        match self.tracks.get_mut(&id) {
            Some(track) => {
                self.by_age.remove(&track.touch);
                track.touch = touch;
                if track.events.len() == MAX_EVENTS_PER_KEY {
                    track.events.pop_front();
                }
                let last = track.events.back().copied().unwrap_or_default();
                track.events.push_back(at.max(last));
            }
            None => {
                if self.tracks.len() >= self.max_keys
                    && let Some((_, oldest)) = self.by_age.pop_first()
                {
                    self.tracks.remove(&oldest);
                }
                self.tracks.insert(id.clone(), Track { events: VecDeque::from([at]), touch });
            }
        }
        self.by_age.insert(touch, id);
    }

    /// The events kept for `key` on `stream`, oldest first.
    pub fn events(&self, stream: &str, key: &K) -> impl Iterator<Item = Duration> {
        let track = self.tracks.get(&(Arc::<str>::from(stream), key.clone()));
        track.into_iter().flat_map(|track| track.events.iter().copied())
    }

    /// When `key` was last seen on `stream`.
    pub fn last(&self, stream: &str, key: &K) -> Option<Duration> {
        self.events(stream, key).last()
    }

    /// The median time between the kept events of `key` on `stream`; `None` with fewer than two events. The
    /// median, because one long pause would carry a mean away.
    pub fn median_interval(&self, stream: &str, key: &K) -> Option<Duration> {
        let events: Vec<Duration> = self.events(stream, key).collect();
        let mut gaps: Vec<Duration> = events.windows(2).map(|pair| pair[1] - pair[0]).collect();
        gaps.sort_unstable();
        gaps.get(gaps.len().checked_sub(1)? / 2).copied()
    }

    /// How many keys are kept, over all streams.
    pub fn len(&self) -> usize {
        self.tracks.len()
    }

    /// Whether nothing has been seen.
    pub fn is_empty(&self) -> bool {
        self.tracks.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn streams_and_keys_are_apart() {
        let mut history = History::new();
        history.observe("motion", &"a", MS(1));
        history.observe("motion", &"b", MS(2));
        history.observe("frames", &"a", MS(3));
        assert_eq!(history.events("motion", &"a").collect::<Vec<_>>(), [MS(1)]);
        assert_eq!(history.last("frames", &"a"), Some(MS(3)));
        assert_eq!(history.last("frames", &"b"), None);
        assert_eq!(history.len(), 3);
    }

    #[test]
    fn one_pause_does_not_move_the_median() {
        let mut history = History::new();
        assert_eq!(history.median_interval("s", &1), None);
        for at in [0, 100, 200, 300, 90_000, 90_100] {
            history.observe("s", &1, MS(at));
        }
        assert_eq!(history.median_interval("s", &1), Some(MS(100)));
    }

    #[test]
    fn the_key_seen_longest_ago_is_forgotten() {
        let mut history = History::with_max_keys(2);
        for (key, at) in [("a", 1), ("b", 2), ("a", 3), ("c", 4)] {
            history.observe("s", &key, MS(at));
        }
        assert_eq!(history.last("s", &"b"), None);
        assert_eq!(history.last("s", &"a"), Some(MS(3)));
        assert_eq!(history.len(), 2);
    }

    proptest! {
        #[test]
        fn bounds_hold_and_tracks_stay_sorted(seen in proptest::collection::vec((0..9_u8, 0..50_u64), 0..400)) {
            let mut history = History::with_max_keys(5);
            for (key, at) in &seen {
                history.observe("s", key, MS(*at));
                prop_assert!(history.len() <= 5);
                prop_assert_eq!(history.by_age.len(), history.len());
            }
            for key in 0..9 {
                let events: Vec<_> = history.events("s", &key).collect();
                prop_assert!(events.len() <= MAX_EVENTS_PER_KEY);
                prop_assert!(events.is_sorted());
            }
        }
    }
}
