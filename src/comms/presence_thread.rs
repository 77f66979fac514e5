//! The thread that talks to the other nodes of a cluster about who comes and who goes, and keeps the time of what they ask
//! clients of this node: one for all, there from the first watch or question on.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::select;

use crate::base::contained::contained;
use crate::base::deadline;
use crate::comms::crossing;
use crate::comms::joined::Joined;
use crate::comms::notices::{self, Notice, Pulse};
use crate::comms::relayed_requests::RelayedRequest;
use crate::comms::remote_presence::{Inbox, News, OWN};
use crate::comms::reports::Reports;
use crate::comms::watches::Watch;
use crate::redis::node::NodeId;

/// How long to wait until more may wait for Redis.
const PAUSE: Duration = Duration::from_millis(20);
/// How much one pulse says, about.
const LONG: usize = 16 << 10;
/// How many notices wait for room, at most. What does not fit is said again in the next turn.
const MAX_OUTGOING: usize = 10_000;

struct PresenceThread {
    joined: Arc<Joined>,
    inbox: Inbox,
    reports: Reports,
    /// What is to be said, to one node or to all, when there is room for it.
    outgoing: VecDeque<(Option<NodeId>, Notice)>,
    /// The number of the last turn, and when the next one is.
    turn: u64,
    next: Instant,
}

/// Begins the thread, unless it runs.
pub(crate) fn start(joined: &Arc<Joined>) -> io::Result<()> {
    let kept = Arc::clone(joined);
    joined.remote_presence.start(move |inbox| {
        let next = deadline::after(kept.remote_presence.turn);
        let mut presence_thread = PresenceThread {
            joined: kept,
            inbox,
            reports: Reports::default(),
            outgoing: VecDeque::new(),
            turn: 0,
            next,
        };
        while contained(|| presence_thread.keep()).is_none() {
            thread::sleep(PAUSE);
        }
        presence_thread.reports.leave_all();
    })
}

/// Does so where nobody can be told that it failed, but the log.
pub(crate) fn start_or_log(joined: &Arc<Joined>) {
    if let Err(error) = start(joined) {
        contained(|| {
            log::warn!(target: "rwf::cluster", "there is no thread to tell other nodes who is here: {error}");
        });
    }
}

impl PresenceThread {
    fn keep(&mut self) {
        let Inbox { bells, notices } = self.inbox.clone();
        loop {
            select! {
                recv(bells) -> bell => match bell {
                    Ok(OWN) => {
                        let news = self.joined.remote_presence.take_news();
                        if news.is_over {
                            return;
                        }
                        self.spread(news);
                    }
                    Ok(bell) => self.reports.hear(bell),
                    Err(_) => return,
                },
                recv(notices) -> notice => match notice {
                    Ok((from, notice)) => self.hear(from, notice),
                    Err(_) => return,
                },
                default(self.patience()) => {}
            }
            self.joined.relayed_requests.take_old().iter().for_each(RelayedRequest::retire);
            self.tell_outgoing();
            self.reports.tell(&self.joined);
            if Instant::now() >= self.next {
                self.take_turn();
            }
        }
    }

    /// How long there is nothing to do, if nobody says anything.
    fn patience(&mut self) -> Duration {
        let request =
            self.joined.relayed_requests.next().map_or(deadline::FOREVER, deadline::until);
        self.patience_of_watches().min(request)
    }

    fn patience_of_watches(&mut self) -> Duration {
        let link = &self.joined.link;
        let late = self.reports.late_nodes().map(Some);
        let waiting = self.outgoing.iter().map(|(to, _)| *to);
        let waits_for: BTreeSet<_> = late.chain(waiting).collect();
        if waits_for.iter().any(|to| link.has_room_for(&self.channel(*to))) {
            return Duration::ZERO;
        }
        if waits_for.iter().any(|to| link.is_up_for(&self.channel(*to))) {
            return PAUSE;
        }
        if self.is_idle() {
            self.next = deadline::after(self.joined.remote_presence.turn);
            return deadline::FOREVER;
        }
        deadline::until(self.next)
    }

    /// What leads to a node, or to all.
    fn channel(&self, to: Option<NodeId>) -> String {
        let channels = &self.joined.channels;
        to.map_or_else(|| channels.notices(), |node| channels.notices_for(node))
    }

    /// Whether all can be told something: of a Redis Cluster, one master brings that.
    fn reaches_all(&self) -> bool {
        self.joined.link.is_up_for(&self.joined.channels.notices())
    }

    fn is_idle(&self) -> bool {
        self.reports.is_empty() && self.joined.remote_presence.is_empty()
    }

    /// Tells the other nodes what is new here. While Redis is away that is left to its return, and to the leases.
    fn spread(&mut self, News { begun, ended, has_risen, has_lost, .. }: News) {
        if has_risen || has_lost {
            self.reports.doubt();
        }
        if has_risen {
            self.reports.renew_all();
            self.outgoing.clear();
            let watches = self.joined.remote_presence.watches();
            self.pulse(None, &Pulse { is_calling: true, ..Pulse::default() }, &watches);
            self.reports.settle(&self.joined);
            return;
        }
        if !self.reaches_all() {
            return;
        }
        // What ends comes first: a node that watched nothing else begins anew.
        for ended in ended.chunks(LONG / 8) {
            self.say(None, Notice::Unwatch(ended.to_vec()));
        }
        if !begun.is_empty() {
            self.pulse(None, &Pulse::default(), &begun);
        }
    }

    fn hear(&mut self, from: NodeId, notice: Notice) {
        let Self { joined, reports, .. } = self;
        match notice {
            Notice::Pulse(Pulse { is_calling, watches, .. }) => {
                reports.renew(joined, from, watches);
                if is_calling {
                    reports.settle_with(joined, from);
                    let own = joined.remote_presence.watches();
                    if !own.is_empty() {
                        self.pulse(Some(from), &Pulse::default(), &own);
                    }
                }
            }
            Notice::Unwatch(numbers) => reports.end(from, &numbers),
            Notice::Again { stream } => reports.begin_again(joined, from, stream),
            Notice::Bye => reports.leave(from),
            Notice::Report(_) => {}
        }
    }

    /// Says that this node is there, and what it watches. While Redis is away time stands still.
    fn take_turn(&mut self) {
        let turn = self.joined.remote_presence.turn;
        self.next = deadline::after(turn);
        if !self.reaches_all() {
            return;
        }
        self.reports.expire(self.joined.remote_presence.lease());
        // What waits for room says the same.
        if self.is_idle() || self.outgoing.iter().any(|(to, _)| to.is_none()) {
            return;
        }
        self.turn += 1;
        let watches = self.joined.remote_presence.watches();
        self.pulse(None, &Pulse { turn: self.turn, ..Pulse::default() }, &watches);
        self.reports.settle(&self.joined);
    }

    fn say(&mut self, to: Option<NodeId>, notice: Notice) {
        if self.outgoing.len() < MAX_OUTGOING {
            self.outgoing.push_back((to, notice));
        }
    }

    fn tell_outgoing(&mut self) {
        let mut full = BTreeSet::new();
        for (to, notice) in std::mem::take(&mut self.outgoing) {
            // In their order to each: nothing goes past what waits.
            if full.contains(&to) || !self.joined.link.has_room_for(&self.channel(to)) {
                full.insert(to);
                self.outgoing.push_back((to, notice));
                continue;
            }
            match to {
                Some(node) => crossing::tell(&self.joined, node, &notice),
                None => crossing::tell_all(&self.joined, &notice),
            }
        }
    }

    /// Says it to one node or to all, in as many parts as it takes: what `last` says is in the last one.
    fn pulse(&mut self, to: Option<NodeId>, last: &Pulse, watches: &[(u64, Arc<Watch>)]) {
        let most = LONG.min(self.joined.max_message_size / 2);
        let mut tell = |pulse| self.say(to, Notice::Pulse(pulse));
        let (mut part, mut size) = (Vec::new(), 0);
        for (number, watch) in watches {
            let scope = watch.scope();
            if !part.is_empty() && size + notices::size(scope) > most {
                size = 0;
                tell(Pulse { watches: std::mem::take(&mut part), ..Pulse::default() });
            }
            size += notices::size(scope);
            part.push((*number, scope.clone()));
        }
        if size > most {
            // It may be too large for all, and time goes on.
            tell(Pulse { watches: std::mem::take(&mut part), ..Pulse::default() });
        }
        tell(Pulse { watches: part, ..*last });
    }
}
