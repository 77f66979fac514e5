//! Who is here for the watches of other nodes: each is a watch of this node, and what it tells goes to the node that asked.
//!
//! What that node does not take at once is not laid down for it: it stays in the watch, where what cancels each other is gone.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::contained::contained;
use crate::comms::changes::Member;
use crate::comms::crossing;
use crate::comms::joined::Joined;
use crate::comms::notices::{self, ANY, Entry, Notice, Report, What, Who};
use crate::comms::registry::Registry;
use crate::comms::watches::{Scope, Watch};
use crate::redis::node::NodeId;

/// How many watches of other nodes there are, at most.
const MAX_WATCHES: usize = 65_536;
/// How many bytes what they watch takes, as it came, at most.
const MAX_WATCHES_BYTES: usize = 16 << 20;
/// How long a report becomes, about.
const LONG: usize = 16 << 10;

#[derive(Debug, Default)]
pub(crate) struct Reports {
    askers: HashMap<NodeId, Asker>,
    /// Which watch a bell is of.
    bells: HashMap<u64, (NodeId, u64)>,
    /// What the watches take.
    bytes: usize,
    last_bell: u64,
    last_stream: u64,
    /// The bells of watches that have more to tell.
    late: BTreeSet<u64>,
    /// The log has told that there are too many.
    has_told: bool,
}

/// A node that watches.
#[derive(Debug)]
struct Asker {
    stream: u64,
    /// The number of the next report.
    next: u64,
    /// Whether the last report is to be followed by an empty one, which shows whether it came.
    owes: bool,
    watches: HashMap<u64, Asked>,
}

#[derive(Debug)]
struct Asked {
    watch: Arc<Watch>,
    bell: u64,
    bytes: usize,
    renewed: Instant,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Begun,
    /// So many of the list of those who are there are still to be told.
    Listing(usize),
    Listed,
}

impl Reports {
    pub(crate) fn is_empty(&self) -> bool {
        self.askers.is_empty()
    }

    /// The nodes that are to be told more, once for each watch.
    pub(crate) fn late_nodes(&self) -> impl Iterator<Item = NodeId> {
        self.late.iter().filter_map(|bell| self.bells.get(bell)).map(|(node, _)| *node)
    }

    /// A node watches these, still or from now on.
    pub(crate) fn renew(&mut self, joined: &Joined, from: NodeId, watches: Vec<(u64, Scope)>) {
        let now = Instant::now();
        for (number, scope) in watches {
            let asked = self.askers.get_mut(&from).and_then(|it| it.watches.get_mut(&number));
            match asked {
                Some(asked) => asked.renewed = now,
                None => self.begin(joined, from, number, scope, now),
            }
        }
    }

    fn begin(&mut self, joined: &Joined, from: NodeId, number: u64, scope: Scope, now: Instant) {
        let Self { askers, bells, late, .. } = self;
        let size = notices::size(&scope);
        if bells.len() >= MAX_WATCHES || self.bytes + size > MAX_WATCHES_BYTES {
            if !std::mem::replace(&mut self.has_told, true) {
                contained(|| {
                    log::warn!(
                        target: "rwf::cluster",
                        "other nodes watch more than this one reports node={from} watches={}",
                        bells.len()
                    );
                });
            }
            return;
        }
        let asker = askers.entry(from).or_insert_with(|| {
            self.last_stream += 1;
            Asker { stream: self.last_stream, next: 0, owes: false, watches: HashMap::new() }
        });
        self.last_bell += 1;
        let bell = self.last_bell;
        let watch = Registry::global().watch_with_bell(scope, joined.remote_presence.bell(bell));
        asker
            .watches
            .insert(number, Asked { watch, bell, bytes: size, renewed: now, stage: Stage::Begun });
        self.bytes += size;
        bells.insert(bell, (from, number));
        late.insert(bell);
    }

    /// These watches of a node are over.
    pub(crate) fn end(&mut self, from: NodeId, numbers: &[u64]) {
        let Some(asker) = self.askers.get_mut(&from) else { return };
        let ended: Vec<_> =
            numbers.iter().filter_map(|number| asker.watches.remove(number)).collect();
        if asker.watches.is_empty() {
            self.askers.remove(&from);
        }
        self.close(ended);
    }

    /// A node has left the cluster.
    pub(crate) fn leave(&mut self, from: NodeId) {
        let watches = self.askers.remove(&from).map(|asker| asker.watches);
        self.close(watches.into_iter().flat_map(HashMap::into_values));
    }

    pub(crate) fn leave_all(&mut self) {
        let askers = std::mem::take(&mut self.askers);
        self.close(askers.into_values().flat_map(|asker| asker.watches.into_values()));
    }

    /// Ends watches of nodes that have not renewed them for so long.
    pub(crate) fn expire(&mut self, lease: Duration) {
        let mut ended = Vec::new();
        self.askers.retain(|_, asker| {
            let old = asker.watches.extract_if(|_, asked| asked.renewed.elapsed() > lease);
            ended.extend(old.map(|(_, asked)| asked));
            !asker.watches.is_empty()
        });
        self.close(ended);
    }

    /// Nobody could renew anything for a while.
    pub(crate) fn renew_all(&mut self) {
        let now = Instant::now();
        let all = self.askers.values_mut().flat_map(|asker| asker.watches.values_mut());
        all.for_each(|asked| asked.renewed = now);
    }

    fn close(&mut self, ended: impl IntoIterator<Item = Asked>) {
        for Asked { watch, bell, bytes, .. } in ended {
            self.bytes -= bytes;
            self.bells.remove(&bell);
            self.late.remove(&bell);
            Registry::global().unwatch(&watch);
        }
    }

    /// A node has missed something: tells it all from the beginning, in another stream, unless it is told that already.
    pub(crate) fn begin_again(&mut self, joined: &Joined, from: NodeId, stream: u64) {
        let is_meant = |asker: &Asker| asker.next > 0 && (stream == asker.stream || stream == ANY);
        if !self.askers.get(&from).is_some_and(is_meant) {
            return;
        }
        let Some(asker) = self.askers.remove(&from) else { return };
        let watches: Vec<_> = asker
            .watches
            .iter()
            .map(|(number, asked)| (*number, asked.watch.scope().clone(), asked.renewed))
            .collect();
        self.close(asker.watches.into_values());
        for (number, scope, renewed) in watches {
            self.begin(joined, from, number, scope, renewed);
        }
    }

    /// Something that was said may not have got there.
    pub(crate) fn doubt(&mut self) {
        self.askers.values_mut().for_each(|asker| asker.owes = true);
    }

    /// Has those who may have missed the last report see it.
    pub(crate) fn settle(&mut self, joined: &Joined) {
        for (node, asker) in &mut self.askers {
            if asker.owes && asker.next > 0 && has_room(joined, *node) {
                asker.post(joined, *node, Vec::new());
                asker.owes = false;
            }
        }
    }

    /// Has a node that was away see what it missed.
    pub(crate) fn settle_with(&mut self, joined: &Joined, node: NodeId) {
        if let Some(asker) = self.askers.get_mut(&node).filter(|asker| asker.next > 0) {
            asker.post(joined, node, Vec::new());
        }
    }

    /// A watch has something to tell.
    pub(crate) fn hear(&mut self, bell: u64) {
        if self.bells.contains_key(&bell) {
            self.late.insert(bell);
        }
    }

    /// Tells a part of what each watch has to tell.
    pub(crate) fn tell(&mut self, joined: &Joined) {
        let most = LONG.min(joined.max_message_size / 2);
        for bell in std::mem::take(&mut self.late) {
            let Some((node, number)) = self.bells.get(&bell) else { continue };
            let Some(asker) = self.askers.get_mut(node) else { continue };
            let Some(asked) = asker.watches.get_mut(number) else { continue };
            if !has_room(joined, *node) {
                self.late.insert(bell);
                continue;
            }
            let (entries, is_all) = asked.entries(*number, most);
            if !is_all {
                self.late.insert(bell);
            }
            if !entries.is_empty() {
                asker.post(joined, *node, entries);
                asker.owes = true;
            }
        }
    }
}

fn has_room(joined: &Joined, node: NodeId) -> bool {
    joined.link.has_room_for(&joined.channels.notices_for(node))
}

impl Asker {
    fn post(&mut self, joined: &Joined, node: NodeId, entries: Vec<Entry>) {
        let report = Report { stream: self.stream, number: self.next, entries };
        self.next += 1;
        crossing::tell(joined, node, &Notice::Report(report));
    }
}

impl Asked {
    /// What is to be told, up to so many bytes, and whether that is all.
    fn entries(&mut self, number: u64, most: usize) -> (Vec<Entry>, bool) {
        let untold = self.watch.look();
        let (mut entries, mut size) = (Vec::new(), 0);
        let mut push = |what| {
            let entry = Entry { watch: number, what };
            size += entry.size();
            entries.push(entry);
            size < most
        };
        if matches!(self.stage, Stage::Begun) {
            push(What::Begin);
            self.stage = Stage::Listing(untold);
        }
        let is_all = loop {
            if matches!(self.stage, Stage::Listing(0)) {
                push(What::End);
                self.stage = Stage::Listed;
            }
            let Some((member, has_joined)) = self.watch.try_next() else {
                // Some have left before they were told of.
                if matches!(self.stage, Stage::Listing(_)) {
                    push(What::End);
                    self.stage = Stage::Listed;
                }
                break true;
            };
            if let Stage::Listing(left) = &mut self.stage {
                *left -= 1;
            }
            let who = who(&member);
            if !push(if has_joined { What::Join(who) } else { What::Leave(who) }) {
                break false;
            }
        };
        (entries, is_all)
    }
}

fn who(Member { topic, session }: &Member) -> Who {
    Who { topic: topic.as_deref().map(str::to_owned), session: session.to_string() }
}
