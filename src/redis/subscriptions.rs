//! Which channels this node wants to hear, which of them Redis has confirmed, and what was heard there.
//!
//! What is wanted changes under the lock of whoever keeps the reasons; here it becomes an order, and whoever writes to Redis
//! takes the orders afterwards, in their order. No lock of anybody is held while Redis is talked to.
//!
//! However long Redis takes none, there is one order at most for each channel that is wanted, and one for each that Redis was
//! told of: what comes and goes meanwhile leaves nothing behind.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;

use crate::redis::history::{Former, History};
use crate::redis::node::NodeId;
use crate::redis::sequences::{Heard, Place};

#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    /// For how long it is remembered what was heard where nobody wants to hear any more.
    memory: Duration,
    state: Mutex<State>,
    /// Redis let somebody wait in vain, and has confirmed nothing since: nobody else waits for it.
    is_late: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    wanted: HashMap<Arc<str>, Wanted>,
    former: Former,
    /// By number, in their order.
    orders: BTreeMap<u64, Order>,
    /// How many orders there were. By its number the answer to one is known.
    ordered: u64,
}

/// A channel that this node wants to hear.
#[derive(Debug)]
struct Wanted {
    /// The order that it was last subscribed by.
    order: u64,
    is_held: bool,
    /// Those who wait until it is: dropped then, which wakes them.
    waiting: Vec<Sender<()>>,
    heard: History,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Subscribe(Arc<str>, u64),
    Unsubscribe(Arc<str>),
}

/// A channel on its way to another connection, with all that is known of it.
#[derive(Debug)]
pub(crate) enum Moving {
    Wanted { name: Arc<str>, waiting: Vec<Sender<()>>, heard: History },
    Former { name: Arc<str>, heard: History, left: Instant },
}

impl Moving {
    pub(crate) fn name(&self) -> &str {
        let (Self::Wanted { name, .. } | Self::Former { name, .. }) = self;
        name
    }
}

impl State {
    fn subscribe(&mut self, name: &Arc<str>) -> u64 {
        self.ordered += 1;
        self.orders.insert(self.ordered, Order::Subscribe(Arc::clone(name), self.ordered));
        self.ordered
    }

    fn unsubscribe(&mut self, name: Arc<str>) {
        self.ordered += 1;
        self.orders.insert(self.ordered, Order::Unsubscribe(name));
    }
}

impl Subscriptions {
    pub(crate) fn new(memory: Duration) -> Self {
        Self { memory, ..Self::default() }
    }

    /// From now on the channel is to be heard.
    pub(crate) fn want(&self, name: &str) {
        let mut state = self.state.lock();
        if state.wanted.contains_key(name) {
            return;
        }
        let name: Arc<str> = name.into();
        let order = state.subscribe(&name);
        let heard = state.former.take(&name);
        let wanted = Wanted { order, is_held: false, waiting: Vec::new(), heard };
        state.wanted.insert(name, wanted);
    }

    /// Nobody wants to hear it any more.
    pub(crate) fn unwant(&self, name: &str) {
        let mut state = self.state.lock();
        let Some((name, wanted)) = state.wanted.remove_entry(name) else { return };
        let Wanted { order, waiting, heard, .. } = wanted;
        state.former.keep(Arc::clone(&name), heard, Instant::now(), self.memory);
        // Redis need not be told of one that it was not told of before.
        if state.orders.remove(&order).is_none() {
            state.unsubscribe(name);
        }
        drop(state);
        drop(waiting);
    }

    /// Takes out the channels that are meant, which another connection brings from now on.
    pub(crate) fn take_out(&self, is_meant: impl Fn(&str) -> bool) -> Vec<Moving> {
        let mut state = self.state.lock();
        let former = state.former.take_all(&is_meant).into_iter();
        let mut moving: Vec<_> =
            former.map(|(name, heard, left)| Moving::Former { name, heard, left }).collect();
        let wanted: Vec<_> = state.wanted.extract_if(|name, _| is_meant(name)).collect();
        for (name, Wanted { order, waiting, heard, .. }) in wanted {
            if state.orders.remove(&order).is_none() {
                state.unsubscribe(Arc::clone(&name));
            }
            moving.push(Moving::Wanted { name, waiting, heard });
        }
        moving
    }

    /// Takes over a channel that another connection has brought.
    pub(crate) fn take_over(&self, moving: Moving) {
        let mut state = self.state.lock();
        match moving {
            Moving::Wanted { name, waiting, heard } => {
                let order = state.subscribe(&name);
                state.wanted.insert(name, Wanted { order, is_held: false, waiting, heard });
            }
            Moving::Former { name, heard, left } => state.former.put(name, heard, left),
        }
    }

    /// Has Redis told once more of the channels that are meant: it has ended them, or refused them.
    pub(crate) fn order_again(&self, is_meant: impl Fn(&str) -> bool) {
        let mut state = self.state.lock();
        let names: Vec<_> = state.wanted.keys().filter(|name| is_meant(name)).cloned().collect();
        for name in names {
            let order = state.subscribe(&name);
            let Some(wanted) = state.wanted.get_mut(&name) else { continue };
            let former = std::mem::replace(&mut wanted.order, order);
            wanted.is_held = false;
            state.orders.remove(&former);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.state.lock().wanted.len()
    }

    pub(crate) fn has_orders(&self) -> bool {
        !self.state.lock().orders.is_empty()
    }

    /// Takes the next orders: of one kind, and no more than `most`.
    pub(crate) fn take_orders(&self, most: usize) -> Vec<Order> {
        let mut state = self.state.lock();
        let mut taken: Vec<Order> = Vec::new();
        while taken.len() < most {
            let Some(next) = state.orders.first_entry() else { break };
            let kind = std::mem::discriminant(next.get());
            if taken.first().is_some_and(|first| std::mem::discriminant(first) != kind) {
                break;
            }
            taken.push(next.remove());
        }
        taken
    }

    /// A new connection begins, on which nothing is subscribed to: all is ordered again.
    pub(crate) fn begin(&self) {
        let mut state = self.state.lock();
        state.orders.clear();
        let names: Vec<_> = state.wanted.keys().cloned().collect();
        for name in names {
            let order = state.subscribe(&name);
            if let Some(wanted) = state.wanted.get_mut(&name) {
                (wanted.order, wanted.is_held) = (order, false);
            }
        }
    }

    /// The connection is over: nothing is held, and nobody waits for it.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        let mut waiting = Vec::new();
        for wanted in state.wanted.values_mut() {
            wanted.is_held = false;
            waiting.append(&mut wanted.waiting);
        }
        drop(state);
        drop(waiting);
    }

    /// Redis has confirmed an order.
    pub(crate) fn hold(&self, name: &str, order: u64) {
        let mut state = self.state.lock();
        let Some(wanted) = state.wanted.get_mut(name).filter(|wanted| wanted.order == order) else {
            return;
        };
        wanted.is_held = true;
        let waiting = std::mem::take(&mut wanted.waiting);
        drop(state);
        self.is_late.store(false, Ordering::Relaxed);
        drop(waiting);
    }

    /// Redis has ended the subscription to a channel; whether that is one that it has confirmed, and that is wanted. One that is
    /// left meanwhile, or yet to be confirmed, has an answer of its own.
    pub(crate) fn lose(&self, name: &str) -> bool {
        let mut state = self.state.lock();
        let wanted = state.wanted.get_mut(name);
        wanted.is_some_and(|wanted| std::mem::take(&mut wanted.is_held))
    }

    /// Waits until Redis has confirmed the subscription to a channel, or nothing is to be expected of it. Where Redis lets
    /// one wait in vain, the next do not wait until it has confirmed something.
    pub(crate) fn wait_until_held(&self, name: &str, deadline: Instant) {
        let Some(held) = self.wait_for(name) else { return };
        if held.recv_deadline(deadline) == Err(RecvTimeoutError::Timeout) {
            self.is_late.store(true, Ordering::Relaxed);
        }
    }

    fn wait_for(&self, name: &str) -> Option<Receiver<()>> {
        if self.is_late.load(Ordering::Relaxed) {
            return None;
        }
        let mut state = self.state.lock();
        let wanted = state.wanted.get_mut(name).filter(|wanted| !wanted.is_held)?;
        let (sender, held) = bounded(0);
        wanted.waiting.push(sender);
        Some(held)
    }

    /// Notes what was heard in a channel; `None` where nobody wants to hear it any more.
    pub(crate) fn hear(&self, channel: &str, from: NodeId, place: Place) -> Option<Heard> {
        let mut state = self.state.lock();
        Some(state.wanted.get_mut(channel)?.heard.hear(from, place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(orders: &[Order]) -> Vec<String> {
        let name = |order: &Order| match order {
            Order::Subscribe(name, _) => format!("+{name}"),
            Order::Unsubscribe(name) => format!("-{name}"),
        };
        orders.iter().map(name).collect()
    }

    /// Confirms orders as Redis would.
    fn confirm(subscriptions: &Subscriptions, orders: &[Order]) {
        for order in orders {
            if let Order::Subscribe(name, order) = order {
                subscriptions.hold(name, *order);
            }
        }
    }

    fn is_held(subscriptions: &Subscriptions, name: &str) -> bool {
        subscriptions.state.lock().wanted.get(name).is_some_and(|wanted| wanted.is_held)
    }

    #[test]
    fn orders_come_in_their_order_and_those_of_one_kind_together() {
        let subscriptions = Subscriptions::default();
        for name in ["a", "b", "a", "c"] {
            subscriptions.want(name);
        }
        assert_eq!(names(&subscriptions.take_orders(2)), ["+a", "+b"]);
        subscriptions.unwant("b");
        subscriptions.unwant("nobody");
        subscriptions.want("b");
        assert_eq!(names(&subscriptions.take_orders(2)), ["+c"]);
        assert_eq!(names(&subscriptions.take_orders(9)), ["-b"]);
        assert_eq!(names(&subscriptions.take_orders(9)), ["+b"]);
        assert_eq!(subscriptions.take_orders(9), []);
        assert_eq!(subscriptions.len(), 3);
    }

    #[test]
    fn what_comes_and_goes_while_no_order_is_taken_leaves_none() {
        let subscriptions = Subscriptions::default();
        subscriptions.want("told");
        subscriptions.take_orders(9);
        for number in 0..1000 {
            let name = number.to_string();
            for _ in 0..3 {
                subscriptions.want(&name);
                subscriptions.unwant(&name);
                subscriptions.unwant("told");
                subscriptions.want("told");
            }
        }
        assert_eq!(subscriptions.state.lock().orders.len(), 2);
        assert_eq!(names(&subscriptions.take_orders(9)), ["-told"]);
        assert_eq!(names(&subscriptions.take_orders(9)), ["+told"]);
    }

    #[test]
    fn what_comes_twice_is_seen_where_somebody_was_away_in_between() {
        let (node, place) = (NodeId::random(), Place { start: 1, number: 7 });
        let subscriptions = Subscriptions::new(Duration::from_secs(60));
        subscriptions.want("a");
        assert_eq!(subscriptions.hear("a", node, place), Some(Heard::Next));
        subscriptions.unwant("a");
        assert_eq!(subscriptions.hear("a", node, place), None);
        subscriptions.want("a");
        assert_eq!(subscriptions.hear("a", node, place), Some(Heard::Again));
    }

    #[test]
    fn a_channel_moves_with_what_was_heard_and_with_those_who_wait_for_it() {
        let (node, place) = (NodeId::random(), |number| Place { start: 1, number });
        let memory = Duration::from_secs(60);
        let [former, next] = [Subscriptions::new(memory), Subscriptions::new(memory)];
        for name in ["stays", "moves", "left"] {
            former.want(name);
            former.hear(name, node, place(1));
        }
        former.unwant("left");
        former.take_orders(9);
        let held = former.wait_for("moves").expect("it is not confirmed");
        for moving in former.take_out(|name| name != "stays") {
            next.take_over(moving);
        }
        assert_eq!(names(&former.take_orders(9)), ["-moves"]);
        assert_eq!((former.len(), next.len()), (1, 1));
        let orders = next.take_orders(9);
        assert_eq!(names(&orders), ["+moves"]);
        confirm(&next, &orders);
        assert_eq!(held.recv(), Err(crossbeam_channel::RecvError), "it is told");
        assert_eq!(next.hear("moves", node, place(3)), Some(Heard::After(1)));
        next.want("left");
        assert_eq!(next.hear("left", node, place(1)), Some(Heard::Again));
    }

    #[test]
    fn what_redis_ends_is_lost_where_it_was_confirmed_and_can_be_ordered_again() {
        let subscriptions = Subscriptions::default();
        subscriptions.want("a");
        assert!(!subscriptions.lose("a"), "it is yet to be answered");
        confirm(&subscriptions, &subscriptions.take_orders(9));
        subscriptions.unwant("a");
        subscriptions.want("a");
        assert!(!subscriptions.lose("a"), "that is what leaving it is answered by");
        subscriptions.take_orders(9);
        confirm(&subscriptions, &subscriptions.take_orders(9));
        assert!(subscriptions.lose("a") && !subscriptions.lose("a") && !subscriptions.lose("b"));
        subscriptions.order_again(|name| name == "a");
        subscriptions.order_again(|name| name == "a");
        let orders = subscriptions.take_orders(9);
        assert_eq!(names(&orders), ["+a"], "once, however often");
        confirm(&subscriptions, &orders);
        assert!(is_held(&subscriptions, "a"));
    }

    #[test]
    fn an_old_answer_does_not_confirm_a_new_order() {
        let subscriptions = Subscriptions::default();
        subscriptions.want("a");
        let first = subscriptions.take_orders(9);
        subscriptions.unwant("a");
        subscriptions.want("a");
        confirm(&subscriptions, &first);
        assert!(!is_held(&subscriptions, "a"), "Redis will end it once more before it holds");
        subscriptions.take_orders(9);
        confirm(&subscriptions, &subscriptions.take_orders(9));
        assert!(is_held(&subscriptions, "a"));

        subscriptions.end();
        subscriptions.begin();
        assert!(!is_held(&subscriptions, "a"), "a new connection knows of nothing");
        assert_eq!(names(&subscriptions.take_orders(9)), ["+a"]);
    }

    #[test]
    fn whoever_waits_is_woken_by_the_answer_and_by_the_end() {
        let subscriptions = Arc::new(Subscriptions::default());
        let never = Instant::now() + Duration::from_secs(60);
        for wakes in [
            (|it: &Subscriptions| confirm(it, &it.take_orders(9))) as fn(&Subscriptions),
            Subscriptions::end,
            |it| it.unwant("a"),
        ] {
            subscriptions.unwant("a");
            subscriptions.take_orders(9);
            subscriptions.want("a");
            let waits = Arc::clone(&subscriptions);
            let thread = std::thread::spawn(move || waits.wait_until_held("a", never));
            let is_waiting = || {
                let state = subscriptions.state.lock();
                state.wanted.get("a").is_some_and(|wanted| !wanted.waiting.is_empty())
            };
            while !is_waiting() {
                std::thread::yield_now();
            }
            wakes(&subscriptions);
            thread.join().unwrap();
        }
    }

    #[test]
    fn after_one_has_waited_in_vain_nobody_waits_until_something_is_confirmed() {
        let subscriptions = Subscriptions::default();
        subscriptions.want("a");
        subscriptions.want("b");
        subscriptions.wait_until_held("a", Instant::now() + Duration::from_millis(5));
        assert!(subscriptions.wait_for("b").is_none(), "it is known to be late");
        confirm(&subscriptions, &subscriptions.take_orders(1));
        assert!(subscriptions.wait_for("b").is_some(), "it answers again");
    }
}
