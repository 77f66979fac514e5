//! The connections to the masters of a Redis Cluster, and the thread that looks up which of them has which slots.
//!
//! A channel is in one slot, and a slot at one master. Messages are numbered here, by channel, wherever it is. A master that
//! does not have a slot any more says so (`MOVED`): what waited there for the slot waits here then, in its order and before
//! all that is posted later, until the map was looked up, and goes to whoever has the slot. What the former master had taken
//! before may go out twice; receivers see that by the number. Subscriptions move with what was heard through them.

use std::mem;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::base::contained::contained;
use crate::base::deadline;
use crate::redis::address::Endpoint;
use crate::redis::backoff;
use crate::redis::dialer::Dialer;
use crate::redis::fault::Fault;
use crate::redis::health::Health;
use crate::redis::link::{Link, NoLink};
use crate::redis::node::NodeId;
use crate::redis::observers::{Arrivals, Overseer};
use crate::redis::parcel::Parcel;
use crate::redis::queue::Load;
use crate::redis::routes::{Routes, Shard};
use crate::redis::sequences::Sequences;
use crate::redis::settings::Settings;
use crate::redis::slot_lookup;
use crate::redis::slots::{self, Map};
use crate::redis::tally::Tally;
use crate::redis::threads::Threads;
use crate::redis::writer::{Posted, Writer};

/// How often it is looked whether what waits here has waited too long.
const LOOK: Duration = Duration::from_millis(200);
/// For so long masters may refuse a slot that they have by the map: they tell each other of slots that move in their own time.
/// When nothing was refused for so long, nothing is.
const QUIET: Duration = Duration::from_secs(1);

pub(crate) struct Shards {
    seed: Dialer,
    node: NodeId,
    /// This node's own.
    channel: String,
    settings: Settings,
    arrivals: Arc<dyn Arrivals>,
    pub(crate) tally: Arc<Tally>,
    itself: Weak<Self>,
    state: Mutex<State>,
    /// The map is to be looked up, or all is over.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    routes: Routes,
    sequences: Sequences,
    is_stale: bool,
    /// Why it is not known who has which slot.
    unknown: Option<Fault>,
    is_over: bool,
    /// The one that looks the map up.
    threads: Threads,
}

impl Shards {
    /// Looks up the map, and connects to all masters that have slots. `channel` is this node's own, `common` those that it hears
    /// in any case.
    pub(crate) fn start(
        seed: Dialer,
        node: NodeId,
        channel: &str,
        common: &[String],
        settings: Settings,
        arrivals: Arc<dyn Arrivals>,
    ) -> Result<Arc<Self>, NoLink> {
        let map = slot_lookup::ask(&seed, node, settings.connect_timeout).map_err(NoLink::Fault)?;
        if map.masters.is_empty() {
            return Err(NoLink::Fault(Fault::no_slots()));
        }
        let shards = Arc::new_cyclic(|itself| Self {
            seed,
            node,
            channel: channel.to_owned(),
            settings,
            arrivals,
            tally: Arc::default(),
            itself: Weak::clone(itself),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let links: Vec<_> = map.masters.iter().map(|master| shards.link(master)).collect();
        shards.state.lock().routes = Routes::new(&map, &links);
        shards.want(channel);
        common.iter().for_each(|channel| shards.want(channel));
        let started = shards.start_all(&links);
        if started.is_err() {
            let _ = shards.stop(Duration::ZERO);
        }
        started.map(|()| shards)
    }

    fn start_all(&self, links: &[Arc<Link>]) -> Result<(), NoLink> {
        for link in links {
            let threads = link.start().map_err(|error| match error {
                NoLink::Fault(fault) => NoLink::Fault(fault.of_shard(link.address())),
                other @ NoLink::Thread(_) => other,
            })?;
            self.keep_threads(link, threads);
        }
        let Some(shards) = self.itself.upgrade() else { return Ok(()) };
        let thread = thread::Builder::new().name("rwf-redis-map".to_owned());
        let keep = move || {
            while contained(|| shards.keep()).is_none() {
                thread::sleep(LOOK);
            }
        };
        let thread = thread.spawn(keep);
        self.state.lock().threads = Threads(vec![thread.map_err(NoLink::Thread)?]);
        Ok(())
    }

    fn keep_threads(&self, link: &Arc<Link>, threads: Threads) {
        let mut state = self.state.lock();
        let shard = state.routes.shards.iter_mut().find(|shard| Arc::ptr_eq(&shard.link, link));
        if let Some(shard) = shard {
            shard.threads = Some(threads);
        }
    }

    /// One to a master, not connected yet.
    fn link(&self, (host, port): &(String, u16)) -> Arc<Link> {
        let mut dialer = self.seed.clone();
        dialer.address.endpoint = Endpoint::Tcp { host: host.clone(), port: *port };
        let overseer: Weak<dyn Overseer> = self.itself.clone();
        Link::new(
            dialer,
            self.node,
            &self.channel,
            self.settings.clone(),
            Arc::clone(&self.arrivals),
            Some(overseer),
            Arc::clone(&self.tally),
        )
    }

    /// Who has the slot of a channel.
    fn owner(&self, channel: &str) -> Arc<Link> {
        Arc::clone(self.state.lock().routes.owner(slots::slot(channel)))
    }

    fn links(&self) -> Vec<Arc<Link>> {
        self.state.lock().routes.shards.iter().map(|shard| Arc::clone(&shard.link)).collect()
    }

    pub(crate) fn post(
        &self,
        channel: &str,
        content: Vec<u8>,
        asker: Option<Sender<u64>>,
    ) -> Posted {
        let (posted, slot) = (Instant::now(), slots::slot(channel));
        let mut state = self.state.lock();
        let (channel, place) = state.sequences.next(channel);
        let parcel = Parcel { channel, place, content, posted, asker };
        let owner = Arc::clone(state.routes.owner(slot));
        let posted = match state.routes.unrouted.has(slot) {
            true => self.hold(&mut state, slot, parcel),
            // Under the lock, so that messages come there in the order of their numbers.
            false => owner.writer.lay_down_numbered(parcel),
        };
        drop(state);
        owner.writer.write_posted();
        owner.status.note_posted(posted)
    }

    fn hold(&self, state: &mut State, slot: usize, parcel: Parcel) -> Posted {
        let (unrouted, most) = (&mut state.routes.unrouted, self.settings.max_waiting_bytes);
        if state.is_over || !unrouted.has_room_for(parcel.cost(), most) {
            return Posted::Lost;
        }
        if parcel.content.len() > self.settings.max_message_size {
            return Posted::TooLarge;
        }
        unrouted.hold(slot, vec![parcel]);
        Posted::Waiting
    }

    pub(crate) fn want(&self, channel: &str) {
        // Under the lock, so that it is not left with one that has lost the slot.
        self.state.lock().routes.owner(slots::slot(channel)).subscriptions.want(channel);
    }

    pub(crate) fn unwant(&self, channel: &str) {
        self.state.lock().routes.owner(slots::slot(channel)).subscriptions.unwant(channel);
    }

    pub(crate) fn ring(&self) {
        let links = self.links().into_iter().filter(|link| link.subscriptions.has_orders());
        links.for_each(|link| link.writer.ring());
    }

    pub(crate) fn is_up_for(&self, channel: &str) -> bool {
        self.owner(channel).writer.is_up()
    }

    pub(crate) fn wait_until_held(&self, channel: &str) {
        self.owner(channel).wait_until_held(channel);
    }

    pub(crate) fn subscriptions(&self) -> usize {
        self.links().iter().map(|link| link.subscriptions.len()).sum()
    }

    pub(crate) fn load(&self) -> Load {
        let unrouted = self.state.lock().routes.unrouted.load();
        let loads = self.links().into_iter().map(|link| link.load());
        loads.fold(unrouted, |all, load| Load {
            messages: all.messages + load.messages,
            bytes: all.bytes + load.bytes,
        })
    }

    pub(crate) fn has_room_for(&self, channel: &str) -> bool {
        self.owner(channel).writer.has_room()
    }

    /// Of all of them together.
    pub(crate) fn health(&self) -> Health {
        let of_link = |link: Arc<Link>| (link.address().to_string(), link.status.health());
        let all = self.links().into_iter().map(of_link).collect();
        let unknown = self.state.lock().unknown.clone();
        Health::of_all(all, unknown)
    }

    /// Tells of messages that were lost when it ended.
    pub(crate) fn note_left_behind(&self, count: u64) {
        self.owner(&self.channel).status.note_left_behind(count);
    }

    /// Ends all connections, like [`Link::stop`].
    #[must_use]
    pub(crate) fn stop(&self, patience: Duration) -> u64 {
        let deadline = deadline::after(patience);
        for link in self.links() {
            link.writer.wait_until_settled(deadline);
        }
        let mut state = self.state.lock();
        state.is_over = true;
        let unrouted = mem::take(&mut state.routes.unrouted);
        let shards = mem::take(&mut state.routes.shards);
        let threads = mem::take(&mut state.threads);
        drop(state);
        self.changed.notify_all();
        let lost = unrouted.load().messages as u64;
        drop(unrouted);
        // All at once, before any of them is waited for.
        let lost = lost + shards.iter().map(|shard| shard.link.writer.stop()).sum::<u64>();
        let lost = lost + shards.into_iter().map(stop).sum::<u64>();
        threads.join();
        lost
    }

    /// Looks the map up when that is wanted, until all is over.
    fn keep(&self) {
        let (mut rounds, mut last) = (0, None::<Instant>);
        while self.wait_until_stale() {
            if last.is_none_or(|last| last.elapsed() > self.settings.max_reconnect_delay) {
                rounds = 0;
            }
            // Nodes tell each other of slots in their own time.
            if rounds > 0 && self.pause(backoff::delay(rounds, self.settings.max_reconnect_delay)) {
                return;
            }
            last = Some(Instant::now());
            self.state.lock().is_stale = false;
            match self.look_up(rounds) {
                Ok(map) => self.apply(&map),
                Err(fault) => {
                    self.note_unknown(&fault);
                    self.note_stale();
                }
            }
            rounds += 1;
        }
    }

    /// Whether the map is to be looked up; not when all is over. What waits here too long is lost meanwhile.
    fn wait_until_stale(&self) -> bool {
        let (mut state, began) = (self.state.lock(), Instant::now());
        while !state.is_stale && !state.is_over {
            if !state.routes.refused.is_empty() && began.elapsed() >= QUIET {
                state.routes.refused.clear();
                state.unknown = None;
            }
            match state.routes.unrouted.is_empty() && state.routes.refused.is_empty() {
                true => self.changed.wait(&mut state),
                false => drop(self.changed.wait_for(&mut state, LOOK)),
            }
            state = self.expire(state);
        }
        !state.is_over
    }

    /// Waits; whether all is over.
    fn pause(&self, time: Duration) -> bool {
        let deadline = deadline::after(time);
        let mut state = self.state.lock();
        while !state.is_over && Instant::now() < deadline {
            self.changed.wait_until(&mut state, deadline.min(Instant::now() + LOOK));
            state = self.expire(state);
        }
        state.is_over
    }

    fn expire<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let lost = state.routes.unrouted.expire(self.settings.max_waiting_age);
        let Some((slot, _)) = lost.first() else { return state };
        let owner = Arc::clone(state.routes.owner(*slot));
        drop(state);
        owner.status.note_lost(lost.len() as u64, "nobody has taken its slot in time");
        self.state.lock()
    }

    /// Asks one after the other: those that are there first, each round another one of them, and at last the one that was
    /// named.
    fn look_up(&self, round: u32) -> Result<Map, Fault> {
        let (mut there, away): (Vec<_>, Vec<_>) =
            self.links().into_iter().partition(|link| link.writer.is_up());
        let first = round as usize % there.len().max(1);
        there.rotate_left(first);
        let dialers = there.iter().chain(&away).map(|link| link.dialer()).chain([&self.seed]);
        let mut result = Err(Fault::no_slots());
        for dialer in dialers {
            result = slot_lookup::ask(dialer, self.node, self.settings.connect_timeout);
            if result.as_ref().is_ok_and(|map| !map.masters.is_empty()) {
                return result;
            }
            if self.state.lock().is_over {
                break;
            }
        }
        result.and_then(|_| Err(Fault::no_slots()))
    }

    /// Has each channel go through whoever has it now.
    fn apply(&self, map: &Map) {
        let known = self.links();
        let mut links = Vec::new();
        for master in &map.masters {
            let is_this = |link: &&Arc<Link>| link.is_to(master);
            match known.iter().find(is_this) {
                Some(link) => links.push(Arc::clone(link)),
                None => {
                    let link = self.link(master);
                    let Ok(threads) = link.start_later() else { return self.note_stale() };
                    let shard = Shard { link: Arc::clone(&link), threads: Some(threads) };
                    let mut state = self.state.lock();
                    if state.is_over {
                        drop(state);
                        stop(shard);
                        return;
                    }
                    state.routes.shards.push(shard);
                    drop(state);
                    links.push(link);
                }
            }
        }
        let retired = {
            let mut state = self.state.lock();
            if state.is_over {
                return;
            }
            let retired = state.routes.follow(map, &links);
            let is_discord = state.routes.refused.values().any(|since| since.elapsed() >= QUIET);
            if !is_discord {
                state.unknown = None;
            }
            drop(state);
            if is_discord {
                self.note_unknown(&Fault::discord());
            }
            retired
        };
        self.ring();
        for (Shard { link, threads }, heirs) in retired {
            link.retire(threads.unwrap_or_default(), &heirs);
        }
    }

    /// The log tells when another reason is found.
    fn note_unknown(&self, fault: &Fault) {
        let mut state = self.state.lock();
        let is_known = state.unknown.replace(fault.clone()).is_some_and(|known| known == *fault);
        drop(state);
        if !is_known {
            contained(|| {
                log::warn!(
                    target: "rwf::cluster",
                    "it is not known which shard of Redis has what: {fault}"
                );
            });
        }
    }

    fn note_stale(&self) {
        self.state.lock().is_stale = true;
        self.changed.notify_all();
    }
}

fn stop(shard: Shard) -> u64 {
    let Shard { link, threads } = shard;
    link.stop(threads.unwrap_or_default(), Duration::ZERO)
}

impl Overseer for Shards {
    fn refused(&self, writer: &Writer) {
        let mut state = self.state.lock();
        // It is known by now, and goes elsewhere, where it is none of this link's.
        let Some(channel) = writer.first_channel() else { return };
        let slot = slots::slot(&channel);
        let parcels = writer.take_out(|channel| slots::slot(channel) == slot);
        state.routes.unrouted.hold(slot, parcels);
        state.is_stale = true;
        drop(state);
        self.changed.notify_all();
    }

    fn ended(&self, channel: &str) {
        self.state.lock().routes.doubt(slots::slot(channel));
        self.note_stale();
    }

    fn away(&self) {
        self.note_stale();
    }
}
