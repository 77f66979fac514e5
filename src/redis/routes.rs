//! Which slot goes through which master of a Redis Cluster, and what goes elsewhere when slots move.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use crate::redis::link::Link;
use crate::redis::slots::{self, Map};
use crate::redis::threads::Threads;
use crate::redis::unrouted::Unrouted;

/// One master.
pub(crate) struct Shard {
    pub(crate) link: Arc<Link>,
    /// None before the start.
    pub(crate) threads: Option<Threads>,
}

#[derive(Default)]
pub(crate) struct Routes {
    pub(crate) shards: Vec<Shard>,
    /// By slot. One that nobody has goes through any, which will refuse it.
    owners: Vec<Arc<Link>>,
    pub(crate) unrouted: Unrouted,
    /// The slots of subscriptions that a master has ended or refused.
    doubtful: BTreeSet<usize>,
    /// The slots that a master had refused when the map was last looked up, and since when each time.
    pub(crate) refused: BTreeMap<usize, Instant>,
}

impl Routes {
    /// Through `links`, one to each master of the map.
    pub(crate) fn new(map: &Map, links: &[Arc<Link>]) -> Self {
        let owner = |owner: &Option<usize>| Arc::clone(&links[owner.unwrap_or(0)]);
        let shard = |link: &Arc<Link>| Shard { link: Arc::clone(link), threads: None };
        Self {
            shards: links.iter().map(shard).collect(),
            owners: map.owners.iter().map(owner).collect(),
            ..Self::default()
        }
    }

    /// Who has a slot.
    pub(crate) fn owner(&self, slot: usize) -> &Arc<Link> {
        &self.owners[slot]
    }

    /// A master has ended or refused a subscription in this slot.
    pub(crate) fn doubt(&mut self, slot: usize) {
        self.doubtful.insert(slot);
    }

    /// Moves what is to move; those that have nothing any more are returned, each with those who have now what it had.
    pub(crate) fn follow(
        &mut self,
        map: &Map,
        links: &[Arc<Link>],
    ) -> Vec<(Shard, Vec<Arc<Link>>)> {
        let former = self.owners.clone();
        for (slot, owner) in map.owners.iter().enumerate() {
            if let Some(owner) = owner {
                self.owners[slot] = Arc::clone(&links[*owner]);
            }
        }
        let owners = &self.owners;
        let has_moved = |slot: usize| !Arc::ptr_eq(&former[slot], &owners[slot]);
        let doubtful = mem::take(&mut self.doubtful);
        let (before, now) = (mem::take(&mut self.refused), Instant::now());
        let slots = doubtful.iter().chain(self.unrouted.slots());
        self.refused = slots.map(|slot| (*slot, *before.get(slot).unwrap_or(&now))).collect();
        for Shard { link, .. } in &self.shards {
            let is_lost = |slot: usize| Arc::ptr_eq(&former[slot], link) && has_moved(slot);
            if (0..slots::COUNT).any(is_lost) {
                for parcel in link.writer.take_out(|channel| is_lost(slots::slot(channel))) {
                    owners[slots::slot(&parcel.channel)].writer.take_over(vec![parcel]);
                }
                let moving = link.subscriptions.take_out(|channel| is_lost(slots::slot(channel)));
                for channel in moving {
                    owners[slots::slot(channel.name())].subscriptions.take_over(channel);
                }
            }
            if !doubtful.is_empty() {
                let is_doubtful = |slot: usize| doubtful.contains(&slot) && !has_moved(slot);
                link.subscriptions.order_again(|channel| is_doubtful(slots::slot(channel)));
            }
        }
        for (slot, parcels) in mem::take(&mut self.unrouted).into_parcels() {
            owners[slot].writer.take_over(parcels);
        }
        let has_nothing =
            |shard: &mut Shard| !owners.iter().any(|owner| Arc::ptr_eq(owner, &shard.link));
        let with_heirs = |shard: Shard| {
            let mut heirs: Vec<Arc<Link>> = Vec::new();
            for (former, owner) in former.iter().zip(owners) {
                let is_heir = Arc::ptr_eq(former, &shard.link)
                    && !heirs.iter().any(|heir| Arc::ptr_eq(heir, owner));
                if is_heir {
                    heirs.push(Arc::clone(owner));
                }
            }
            (shard, heirs)
        };
        self.shards.extract_if(.., has_nothing).map(with_heirs).collect()
    }
}
