//! Whom the watches of this node see on other nodes: what these report, and which of them are there still.
//!
//! A node that reports nothing wrong is known by its pulse. Time is measured by what this node says to everybody, itself
//! included: one that was not heard while so many turns came home is gone. While Redis is away none come, and nobody goes.

use std::collections::{HashMap, HashSet};
use std::io;
use std::mem;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use parking_lot::Mutex;

use crate::base::deadline;
use crate::comms::bell::Bell;
use crate::comms::changes::Member;
use crate::comms::notices::{ANY, Entry, Notice, Report, What, Who};
use crate::comms::watches::Watch;
use crate::redis::node::NodeId;

/// How long the end waits for the thread, which may be in the program's logger.
const END_PATIENCE: Duration = Duration::from_secs(1);
/// How many turns a lease has.
const TURNS: u32 = 4;
/// How many notices wait for the thread that reports. One that finds no room is said again, as if it had been lost.
const MAX_NOTICES: usize = 4096;
/// How many nodes are seen, at most: many times of what a cluster can have, so that what anybody makes up has an end.
const MAX_NODES: usize = 10_000;
/// The number of the bell for what is remembered here.
pub(crate) const OWN: u64 = 0;

pub(crate) struct RemotePresence {
    /// How often this node says that it is there.
    pub(crate) turn: Duration,
    state: Mutex<State>,
    /// Of the thread that tells other nodes what is new.
    bell: Bell,
    bells: Sender<u64>,
    notices: Sender<(NodeId, Notice)>,
    thread: Mutex<Thread>,
}

/// The thread that talks to the other nodes: there from the first watch on, of whatever node.
enum Thread {
    Idle(Inbox),
    Running(JoinHandle<()>),
    Over,
}

/// What that thread hears.
#[derive(Debug, Clone)]
pub(crate) struct Inbox {
    pub(crate) bells: Receiver<u64>,
    pub(crate) notices: Receiver<(NodeId, Notice)>,
}

#[derive(Debug, Default)]
struct State {
    watches: HashMap<u64, Arc<Watch>>,
    peers: HashMap<NodeId, Peer>,
    last: u64,
    news: News,
}

/// What the thread has not told the other nodes.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// Watches that have begun, and those that have ended, of which they may know.
    pub(crate) begun: Vec<(u64, Arc<Watch>)>,
    pub(crate) ended: Vec<u64>,
    /// Redis is back.
    pub(crate) has_risen: bool,
    /// Something that was said did not get there.
    pub(crate) has_lost: bool,
    pub(crate) is_over: bool,
}

/// A node that reports.
#[derive(Debug, Default)]
struct Peer {
    stream: u64,
    /// The number of the next report; none where one was missed.
    next: Option<u64>,
    /// How many turns came home since it was heard.
    turns: u32,
    /// When it was last told to begin anew.
    asked: Option<Instant>,
    seen: HashMap<u64, Seen>,
}

/// Whom one watch sees on one node.
#[derive(Debug, Default)]
struct Seen {
    members: HashSet<Member>,
    /// Those of a list that has not ended.
    listed: Option<HashSet<Member>>,
}

impl RemotePresence {
    pub(crate) fn new(lease: Duration) -> Self {
        let (notices, told) = bounded(MAX_NOTICES);
        // There is no more in it than there are bells.
        let (bells, rung) = unbounded();
        Self {
            turn: lease.min(deadline::FOREVER) / TURNS,
            state: Mutex::default(),
            bell: Bell::new(bells.clone(), OWN),
            bells,
            notices,
            thread: Mutex::new(Thread::Idle(Inbox { bells: rung, notices: told })),
        }
    }

    /// Has a watch see those who are elsewhere; [`ring`](Self::ring) tells the other nodes.
    pub(crate) fn add(&self, watch: &Arc<Watch>) {
        let mut state = self.state.lock();
        state.last += 1;
        let number = state.last;
        state.watches.insert(number, Arc::clone(watch));
        state.news.begun.push((number, Arc::clone(watch)));
    }

    /// Nobody wants to know any more.
    pub(crate) fn remove(&self, watch: &Arc<Watch>) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let found = state.watches.iter().find(|(_, other)| Arc::ptr_eq(watch, other));
        let Some((&number, _)) = found else { return };
        let mut dropped = (state.watches.remove(&number), Vec::new(), HashMap::new());
        let before = state.news.begun.len();
        state.news.begun.retain(|(begun, _)| *begun != number);
        if state.news.begun.len() == before {
            state.news.ended.push(number);
        }
        dropped.1.extend(state.peers.values_mut().filter_map(|peer| peer.seen.remove(&number)));
        if state.watches.is_empty() {
            dropped.2 = mem::take(&mut state.peers);
        }
        drop(guard);
        drop(dropped);
        self.ring();
    }

    /// How long a node may say nothing.
    pub(crate) fn lease(&self) -> Duration {
        self.turn * TURNS
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().watches.is_empty()
    }

    /// All watches that see those who are elsewhere.
    pub(crate) fn watches(&self) -> Vec<(u64, Arc<Watch>)> {
        let state = self.state.lock();
        state.watches.iter().map(|(number, watch)| (*number, Arc::clone(watch))).collect()
    }

    /// A bell of the thread that talks to the other nodes.
    pub(crate) fn bell(&self, number: u64) -> Bell {
        Bell::new(self.bells.clone(), number)
    }

    /// Has the thread tell what is new.
    pub(crate) fn ring(&self) {
        self.bell.ring();
    }

    pub(crate) fn take_news(&self) -> News {
        self.bell.hear();
        let mut state = self.state.lock();
        let news = News { is_over: state.news.is_over, ..News::default() };
        mem::replace(&mut state.news, news)
    }

    /// Hands a notice to the thread.
    pub(crate) fn pass_on(&self, from: NodeId, notice: Notice) {
        let _ = self.notices.try_send((from, notice));
    }

    /// Redis is back: nobody could be heard meanwhile.
    pub(crate) fn rise(&self) {
        let mut state = self.state.lock();
        state.peers.values_mut().for_each(|peer| peer.turns = 0);
        state.news.has_risen = true;
        drop(state);
        self.ring();
    }

    /// Something that this node has said did not get to others.
    pub(crate) fn note_lost(&self) {
        self.state.lock().news.has_lost = true;
        self.ring();
    }

    /// A turn of this node has come back to it. Whoever was not heard for too many is gone.
    pub(crate) fn end_turn(&self) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let is_gone = |_: &NodeId, peer: &mut Peer| {
            peer.turns += 1;
            peer.turns >= TURNS
        };
        let gone: Vec<_> = state.peers.extract_if(is_gone).map(|(_, peer)| peer).collect();
        let changed = state.forget(&gone);
        drop(guard);
        changed.iter().for_each(|watch| watch.wake());
    }

    /// A node has left the cluster.
    pub(crate) fn leave(&self, node: NodeId) {
        let mut state = self.state.lock();
        let Some(peer) = state.peers.remove(&node) else { return };
        let changed = state.forget(&[peer]);
        drop(state);
        changed.iter().for_each(|watch| watch.wake());
    }

    /// A node is there. The stream that it has to begin anew, if its reports are not known.
    pub(crate) fn hear_pulse(&self, from: NodeId) -> Option<u64> {
        let mut state = self.state.lock();
        let Some(peer) = state.peers.get_mut(&from) else {
            return (!state.watches.is_empty()).then_some(ANY);
        };
        peer.turns = 0;
        None
    }

    /// Takes a report. The stream that has to begin anew, if something before it is missing.
    pub(crate) fn hear_report(&self, from: NodeId, report: Report) -> Option<u64> {
        let Report { stream, number, entries } = report;
        let mut guard = self.state.lock();
        let State { watches, peers, .. } = &mut *guard;
        if watches.is_empty() || (peers.len() >= MAX_NODES && !peers.contains_key(&from)) {
            return None;
        }
        let peer = peers.entry(from).or_default();
        peer.turns = 0;
        if !peer.is_next(stream, number) {
            let is_asked = peer.asked.is_some_and(|asked| asked.elapsed() < self.turn);
            if !is_asked {
                peer.asked = Some(Instant::now());
            }
            return (!is_asked).then_some(stream);
        }
        let mut changed = HashMap::new();
        for Entry { watch: number, what } in entries {
            let Some(watch) = watches.get(&number) else { continue };
            if peer.seen.entry(number).or_default().hear(watch, what) {
                changed.insert(number, Arc::clone(watch));
            }
        }
        drop(guard);
        changed.values().for_each(|watch| watch.wake());
        None
    }

    /// Begins the thread, unless it runs or is over.
    pub(crate) fn start(&self, run: impl FnOnce(Inbox) + Send + 'static) -> io::Result<()> {
        let mut thread = self.thread.lock();
        let Thread::Idle(inbox) = &*thread else { return Ok(()) };
        let inbox = inbox.clone();
        // Nobody but others that begin it waits for this lock.
        let started =
            thread::Builder::new().name("rwf-presence".to_owned()).spawn(|| run(inbox))?;
        *thread = Thread::Running(started);
        Ok(())
    }

    /// Ends the thread; whether it has run.
    pub(crate) fn stop(&self) -> bool {
        let thread = mem::replace(&mut *self.thread.lock(), Thread::Over);
        self.state.lock().news.is_over = true;
        self.ring();
        let Thread::Running(thread) = thread else { return false };
        // A logger of the program may leave the cluster, on whatever thread it is called, or wait for whoever leaves: the
        // thread ends when it returns.
        let deadline = deadline::after(END_PATIENCE);
        let is_this = thread.thread().id() == thread::current().id();
        while !is_this && !thread.is_finished() && !deadline::until(deadline).is_zero() {
            thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// The process is in the cluster no more: for its watches, all who are elsewhere have gone.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        let gone: Vec<_> = mem::take(&mut state.peers).into_values().collect();
        let changed = state.forget(&gone);
        let watches = mem::take(&mut state.watches);
        let news = mem::take(&mut state.news.begun);
        drop(state);
        changed.iter().for_each(|watch| watch.wake());
        drop((watches, news));
    }
}

impl State {
    /// Has the watches see nobody of these nodes any more; which of them have changed.
    fn forget(&mut self, gone: &[Peer]) -> Vec<Arc<Watch>> {
        let mut changed = HashMap::new();
        for (number, seen) in gone.iter().flat_map(|peer| &peer.seen) {
            let Some(watch) = self.watches.get(number) else { continue };
            for member in &seen.members {
                watch.note_elsewhere(member.clone(), false);
                changed.insert(*number, Arc::clone(watch));
            }
        }
        changed.into_values().collect()
    }
}

impl Peer {
    /// Whether a report follows the last one, or begins a stream.
    fn is_next(&mut self, stream: u64, number: u64) -> bool {
        let begins = number == 0 && stream != self.stream;
        if begins || (stream == self.stream && self.next == Some(number)) {
            (self.stream, self.next) = (stream, Some(number + 1));
            if begins {
                self.asked = None;
            }
            return true;
        }
        (self.stream, self.next) = (stream, None);
        false
    }
}

impl Seen {
    /// Whether that is something new for the watch.
    fn hear(&mut self, watch: &Watch, what: What) -> bool {
        match what {
            What::Begin => {
                self.listed = Some(HashSet::new());
                false
            }
            What::Join(who) => member(who).is_some_and(|member| self.join(watch, member)),
            What::Leave(who) => member(who).is_some_and(|member| self.leave(watch, &member)),
            What::End => {
                let Some(listed) = self.listed.take() else { return false };
                let gone: Vec<_> = self.members.difference(&listed).cloned().collect();
                gone.iter().filter(|member| self.leave(watch, member)).count() > 0
            }
        }
    }

    fn join(&mut self, watch: &Watch, member: Member) -> bool {
        if let Some(listed) = &mut self.listed {
            listed.insert(member.clone());
        }
        let is_new = self.members.insert(member.clone());
        if is_new {
            watch.note_elsewhere(member, true);
        }
        is_new
    }

    fn leave(&mut self, watch: &Watch, member: &Member) -> bool {
        if let Some(listed) = &mut self.listed {
            listed.remove(member);
        }
        let was_there = self.members.remove(member);
        if was_there {
            watch.note_elsewhere(member.clone(), false);
        }
        was_there
    }
}

/// `None` for a session of a version that is not known.
fn member(Who { topic, session }: Who) -> Option<Member> {
    Some(Member { topic: topic.map(Into::into), session: session.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comms::receivers::Target;
    use crate::comms::watches::Scope;

    const WATCH: u64 = 1;

    fn remote_presence() -> (RemotePresence, Arc<Watch>) {
        let remote_presence = RemotePresence::new(Duration::from_secs(3600));
        let scope = Scope { receivers: Target::All.into(), prefix: None };
        let watch = Arc::new(Watch::new(scope));
        remote_presence.add(&watch);
        (remote_presence, watch)
    }

    fn who(session: &str) -> Who {
        Who { topic: None, session: session.to_owned() }
    }

    /// Of a text: `(` and `)` begin and end a list, `+1` and `-1` are who comes and goes.
    fn report(stream: u64, number: u64, text: &str) -> Report {
        let what = |word: &str| match word.split_at(1) {
            ("(", _) => What::Begin,
            (")", _) => What::End,
            ("+", session) => What::Join(who(session)),
            (_, session) => What::Leave(who(session)),
        };
        let entries = text.split_whitespace().map(|word| Entry { watch: WATCH, what: what(word) });
        Report { stream, number, entries: entries.collect() }
    }

    fn told(watch: &Watch) -> String {
        let changes = std::iter::from_fn(|| watch.try_next());
        let sign = |has_joined| if has_joined { '+' } else { '-' };
        let mut texts: Vec<_> = changes
            .map(|(member, has_joined)| format!("{}{}", sign(has_joined), member.session))
            .collect();
        texts.sort();
        texts.join(" ")
    }

    #[test]
    fn a_session_on_two_nodes_leaves_with_the_second() {
        let ((remote_presence, watch), nodes) =
            (remote_presence(), [NodeId::random(), NodeId::random()]);
        for node in nodes {
            assert_eq!(remote_presence.hear_report(node, report(1, 0, "( +1 +1 )")), None);
        }
        assert_eq!(told(&watch), "+1");
        remote_presence.leave(nodes[0]);
        assert_eq!(told(&watch), "");
        assert_eq!(remote_presence.hear_report(nodes[1], report(1, 1, "-1 -2")), None);
        assert_eq!(told(&watch), "-1");
    }

    #[test]
    fn what_is_missing_is_asked_for_once_and_a_list_tells_the_difference_alone() {
        let ((remote_presence, watch), node) = (remote_presence(), NodeId::random());
        let hear = |stream, number, text: &str| {
            remote_presence.hear_report(node, report(stream, number, text))
        };
        assert_eq!(hear(5, 3, "+9"), Some(5), "a stream that has begun before");
        assert_eq!(hear(6, 0, "( +1 +2"), None);
        assert_eq!(hear(6, 1, "+3 ) +4"), None);
        assert_eq!(told(&watch), "+1 +2 +3 +4");
        assert_eq!(hear(6, 3, "-1"), Some(6));
        assert_eq!((hear(6, 4, "-2"), hear(6, 2, "-3")), (None, None), "it was asked for");
        assert_eq!(told(&watch), "", "what follows a gap says nothing");
        assert_eq!(hear(7, 0, "( +2 +5 -5"), None);
        assert_eq!(told(&watch), "", "what is not in the list yet may come");
        assert_eq!(hear(7, 1, "+6 )"), None);
        assert_eq!(told(&watch), "+6 -1 -3 -4");
        assert_eq!(hear(7, 3, ""), Some(7));
    }

    #[test]
    fn a_node_is_gone_that_says_nothing_while_turns_come_home_and_its_pulse_asks_for_it_anew() {
        let ((remote_presence, watch), node) = (remote_presence(), NodeId::random());
        assert_eq!(remote_presence.hear_pulse(node), Some(ANY), "nothing is known of it");
        remote_presence.hear_report(node, report(1, 0, "( +1 )"));
        for _ in 0..2 * TURNS {
            (1..TURNS).for_each(|_| remote_presence.end_turn());
            assert_eq!(remote_presence.hear_pulse(node), None);
        }
        (1..TURNS).for_each(|_| remote_presence.end_turn());
        remote_presence.rise();
        (1..TURNS).for_each(|_| remote_presence.end_turn());
        assert_eq!(told(&watch), "+1", "while Redis was away it could not be heard");
        remote_presence.end_turn();
        assert_eq!(told(&watch), "-1");
        assert_eq!(remote_presence.hear_pulse(node), Some(ANY));
        assert_eq!(remote_presence.hear_report(node, report(1, 1, "")), Some(1));
    }

    #[test]
    fn no_more_nodes_are_seen_than_a_cluster_can_have() {
        let (remote_presence, watch) = remote_presence();
        let nodes: Vec<_> = (0..=MAX_NODES).map(|_| NodeId::random()).collect();
        for node in &nodes {
            assert_eq!(remote_presence.hear_report(*node, report(1, 0, "( +1 )")), None);
        }
        assert_eq!(remote_presence.state.lock().peers.len(), MAX_NODES);
        assert_eq!(remote_presence.hear_report(nodes[0], report(1, 1, "+2")), None);
        assert_eq!(told(&watch), "+1 +2", "those that are seen still are");
    }

    #[test]
    fn nothing_is_kept_for_watches_that_are_over() {
        let ((remote_presence, watch), node) = (remote_presence(), NodeId::random());
        assert_eq!(remote_presence.take_news().begun.len(), 1);
        remote_presence.hear_report(node, report(1, 0, "( +1 )"));
        remote_presence.remove(&watch);
        assert_eq!(remote_presence.take_news().ended, [WATCH]);
        assert!(remote_presence.state.lock().peers.is_empty() && remote_presence.is_empty());
        assert_eq!(
            (remote_presence.hear_pulse(node), remote_presence.hear_report(node, report(1, 1, ""))),
            (None, None)
        );
        // One that nobody was told of needs no end.
        remote_presence.add(&watch);
        remote_presence.remove(&watch);
        let News { begun, ended, .. } = remote_presence.take_news();
        assert!(begun.is_empty() && ended.is_empty());
    }
}
