//! Who came and who went since it was last told. What nobody takes does not pile up: a join and a leave that were not told
//! cancel each other, so there is never more to tell than who is there and who was told to be.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::comms::session::SessionId;

/// A session in a topic, or without one, connected at all.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Member {
    pub(crate) topic: Option<Arc<str>>,
    pub(crate) session: SessionId,
}

#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Those who are there, and those who were told to be.
    members: HashMap<Member, State>,
    /// Those of whom something else was told than what is, by the order in which that came about.
    untold: BTreeMap<u64, Member>,
    /// The next number in that order.
    next: u64,
}

#[derive(Debug, Default)]
struct State {
    connections: usize,
    /// Whether it was told to be there.
    is_told: bool,
    /// Its place among the untold.
    place: Option<u64>,
}

impl Changes {
    /// One connection more.
    pub(crate) fn add(&mut self, member: Member) {
        self.members.entry(member.clone()).or_default().connections += 1;
        self.settle(member);
    }

    /// One connection less.
    pub(crate) fn remove(&mut self, member: Member) {
        if let Some(state) = self.members.get_mut(&member) {
            state.connections = state.connections.saturating_sub(1);
            self.settle(member);
        }
    }

    /// All have gone.
    pub(crate) fn remove_all(&mut self) {
        let members: Vec<_> = self.members.keys().cloned().collect();
        for member in members {
            if let Some(state) = self.members.get_mut(&member) {
                state.connections = 0;
                self.settle(member);
            }
        }
    }

    /// The oldest change that was not told, which is told by this: who it is, and whether it has come.
    pub(crate) fn next(&mut self) -> Option<(Member, bool)> {
        let (_, member) = self.untold.pop_first()?;
        let state = self.members.entry(member.clone()).or_default();
        let has_joined = state.connections > 0;
        if has_joined {
            (state.is_told, state.place) = (true, None);
        } else {
            self.members.remove(&member);
        }
        Some((member, has_joined))
    }

    /// How many changes were not told.
    #[cfg(feature = "redis")]
    pub(crate) fn len(&self) -> usize {
        self.untold.len()
    }

    /// Has a member told if something else was told of it, and not told if nothing else was.
    fn settle(&mut self, member: Member) {
        let Entry::Occupied(mut entry) = self.members.entry(member) else { return };
        let state = entry.get_mut();
        if (state.connections > 0) != state.is_told {
            if state.place.is_none() {
                state.place = Some(self.next);
                self.untold.insert(self.next, entry.key().clone());
                self.next += 1;
            }
            return;
        }
        if let Some(place) = state.place.take() {
            self.untold.remove(&place);
        }
        if !state.is_told {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn member(session: i32, topic: u8) -> Member {
        Member { topic: Some(format!("room:{topic}").into()), session: session.into() }
    }

    /// All that is to be told.
    fn told(changes: &mut Changes) -> Vec<(Member, bool)> {
        std::iter::from_fn(|| changes.next()).collect()
    }

    #[test]
    fn a_second_connection_is_no_join_and_the_first_of_two_ends_is_no_leave() {
        let mut changes = Changes::default();
        changes.add(member(1, 1));
        changes.add(member(1, 1));
        assert_eq!(told(&mut changes), [(member(1, 1), true)]);
        changes.remove(member(1, 1));
        assert_eq!(told(&mut changes), []);
        changes.remove(member(1, 1));
        assert_eq!(told(&mut changes), [(member(1, 1), false)]);
        changes.remove(member(1, 1));
        assert_eq!(told(&mut changes), [], "nobody is there less than nobody");
    }

    #[test]
    fn what_was_not_told_cancels_and_the_rest_keeps_its_order() {
        let mut changes = Changes::default();
        changes.add(member(1, 1));
        assert_eq!(changes.next(), Some((member(1, 1), true)));
        changes.remove(member(1, 1));
        changes.add(member(2, 1));
        changes.add(member(3, 1));
        changes.remove(member(3, 1));
        // It leaves a second time, after the others came.
        changes.add(member(1, 1));
        changes.add(member(4, 1));
        changes.remove(member(1, 1));
        let expected = [(member(2, 1), true), (member(4, 1), true), (member(1, 1), false)];
        assert_eq!(told(&mut changes), expected);
        changes.remove_all();
        let gone: HashSet<_> = told(&mut changes).into_iter().collect();
        assert_eq!(gone, [(member(2, 1), false), (member(4, 1), false)].into());
        assert!(changes.members.is_empty() && changes.untold.is_empty(), "{changes:?}");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Add(i32, u8),
        Remove(i32, u8),
        RemoveAll,
        Tell,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..3, 0..2_u8).prop_map(|(session, topic)| Step::Add(session, topic)),
            4 => (0..3, 0..2_u8).prop_map(|(session, topic)| Step::Remove(session, topic)),
            1 => Just(Step::RemoveAll),
            3 => Just(Step::Tell),
        ]
    }

    #[test]
    fn what_is_told_alternates_ends_at_what_is_and_is_never_more_than_that_and_what_was_told() {
        let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
        proptest!(config, |(steps in proptest::collection::vec(step(), 0..80))| {
            let (mut changes, mut model) = (Changes::default(), HashMap::<Member, usize>::new());
            let mut watcher = HashSet::new();
            let mut hear = |(member, has_joined): (Member, bool)| {
                let is_news = if has_joined {
                    watcher.insert(member.clone())
                } else {
                    watcher.remove(&member)
                };
                assert!(is_news, "told twice: {member:?} {has_joined}");
                watcher.clone()
            };
            let mut heard = HashSet::new();
            for step in steps {
                match step {
                    Step::Add(session, topic) => {
                        *model.entry(member(session, topic)).or_default() += 1;
                        changes.add(member(session, topic));
                    }
                    Step::Remove(session, topic) => {
                        let member = member(session, topic);
                        if let Some(count) = model.get_mut(&member) {
                            *count -= 1;
                            if *count == 0 {
                                model.remove(&member);
                            }
                        }
                        changes.remove(member);
                    }
                    Step::RemoveAll => {
                        model.clear();
                        changes.remove_all();
                    }
                    Step::Tell => {
                        if let Some(change) = changes.next() {
                            heard = hear(change);
                        }
                    }
                }
                let there: HashSet<_> = model.keys().cloned().collect();
                let known: HashSet<_> = changes.members.keys().cloned().collect();
                prop_assert_eq!(known, &there | &heard, "it remembers who is there or was told to be");
                let untold: HashSet<_> = changes.untold.values().cloned().collect();
                prop_assert_eq!(untold, &there ^ &heard, "to be told is what differs");
                prop_assert_eq!(changes.untold.len(), (&there ^ &heard).len(), "each once");
            }
            while let Some(change) = changes.next() {
                heard = hear(change);
            }
            prop_assert_eq!(heard, model.into_keys().collect::<HashSet<_>>());
        });
    }
}
