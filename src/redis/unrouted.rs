//! Messages that wait until it is known which master of a Redis Cluster has their slots: in order, with the memory that they
//! take.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::redis::parcel::Parcel;
use crate::redis::queue::Load;

#[derive(Debug, Default)]
pub(crate) struct Unrouted {
    by_slot: BTreeMap<usize, Vec<Parcel>>,
    /// What these parcels cost.
    bytes: usize,
}

impl Unrouted {
    /// Whether none waits, nor would.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_slot.is_empty()
    }

    /// Whether what is posted to a channel of this slot waits here.
    pub(crate) fn has(&self, slot: usize) -> bool {
        self.by_slot.contains_key(&slot)
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = &usize> {
        self.by_slot.keys()
    }

    /// Whether one of this cost may wait too, where all may take `most` bytes. One always fits where there is none.
    pub(crate) fn has_room_for(&self, cost: usize, most: usize) -> bool {
        self.bytes == 0 || self.bytes + cost <= most
    }

    /// From now on what is posted to channels of this slot waits here, behind these.
    pub(crate) fn hold(&mut self, slot: usize, parcels: Vec<Parcel>) {
        self.bytes += parcels.iter().map(Parcel::cost).sum::<usize>();
        self.by_slot.entry(slot).or_default().extend(parcels);
    }

    /// Takes out what has waited for so long or longer, with the slots. What is posted there waits here still.
    pub(crate) fn expire(&mut self, age: Duration) -> Vec<(usize, Parcel)> {
        let mut lost = Vec::new();
        for (slot, parcels) in &mut self.by_slot {
            let old = parcels.extract_if(.., |parcel| parcel.posted.elapsed() >= age);
            lost.extend(old.map(|parcel| (*slot, parcel)));
        }
        self.bytes -= lost.iter().map(|(_, parcel)| parcel.cost()).sum::<usize>();
        lost
    }

    pub(crate) fn load(&self) -> Load {
        Load { messages: self.by_slot.values().map(Vec::len).sum(), bytes: self.bytes }
    }

    /// All of them, by slot.
    pub(crate) fn into_parcels(self) -> impl Iterator<Item = (usize, Vec<Parcel>)> {
        self.by_slot.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::sequences::Place;
    use std::time::Instant;

    fn parcel(number: u64) -> Parcel {
        let place = Place { start: 1, number };
        Parcel {
            channel: "a".into(),
            place,
            content: vec![0; 10],
            posted: Instant::now(),
            asker: None,
        }
    }

    #[test]
    fn what_is_held_stays_in_its_order_and_its_slot_waits_on_when_all_of_it_was_too_old() {
        let mut unrouted = Unrouted::default();
        assert!(unrouted.is_empty() && unrouted.has_room_for(usize::MAX, 0), "one always fits");
        unrouted.hold(7, vec![parcel(1), parcel(2)]);
        unrouted.hold(7, vec![parcel(3)]);
        unrouted.hold(9, vec![parcel(4)]);
        let Load { messages, bytes } = unrouted.load();
        assert_eq!((messages, bytes), (4, 4 * parcel(0).cost()));
        assert!(unrouted.has_room_for(5, bytes + 5) && !unrouted.has_room_for(6, bytes + 5));
        assert_eq!(unrouted.expire(Duration::MAX).len(), 0, "they are not old");
        let lost = unrouted.expire(Duration::ZERO);
        let lost: Vec<_> = lost.iter().map(|(slot, it)| (*slot, it.place.number)).collect();
        assert_eq!(lost, [(7, 1), (7, 2), (7, 3), (9, 4)]);
        assert_eq!((unrouted.load().messages, unrouted.load().bytes), (0, 0));
        assert!(unrouted.has(7) && !unrouted.has(8), "nothing overtakes what is posted there");
    }
}
