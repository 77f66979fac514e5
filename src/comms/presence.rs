//! Presence: who comes and who goes, as a channel.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Iter, Receiver, bounded};

use crate::comms::changes::Member;
#[cfg(feature = "redis")]
use crate::comms::presence_thread;
use crate::comms::reach::Comms;
use crate::comms::receivers::{Receivers, Target};
use crate::comms::registry::Registry;
use crate::comms::server::ServerComms;
use crate::comms::session::{ServerId, SessionId};
use crate::comms::watches::{Scope, Watch};

/// How many changes are handed over ahead. A loop that looks in without waiting gets so many at once.
const AHEAD: usize = 64;

impl Comms {
    /// Watches who comes and who goes, of those who are meant: into a topic, or for other receivers, who connects. It
    /// begins with those who are there.
    ///
    /// ```
    /// use rwf::channel::{select, tick};
    /// use rwf::prelude::*;
    /// use std::time::Duration;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let room = Comms::topic("room:7").presence()?;
    /// let everybody = Comms::notify().presence()?;
    /// let ticks = tick(Duration::from_millis(1));
    /// loop {
    ///     select! {
    ///         recv(room) -> change => println!("in the room: {:?}", change?),
    ///         recv(everybody) -> change => println!("here: {:?}", change?),
    ///         recv(ticks) -> _ => break,
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// [`presence_in`](Self::presence_in) watches many topics at once. Who is there just now, without a watch, say
    /// [`members`](Self::members).
    ///
    /// # Errors
    ///
    /// The system has no thread for the watch.
    #[doc(alias = "online")]
    pub fn presence(&self) -> io::Result<Presence> {
        Presence::begin(Scope { receivers: self.receivers.clone(), prefix: None })
    }

    /// Watches who comes into which topic and who leaves it, for all topics whose names begin with `prefix`. It begins
    /// with those who are there.
    ///
    /// One thread can so announce all that happens in the rooms of a chat, and keep the lists that its clients show. The
    /// whole list goes out each time, as the [newest value](Self::send_latest), so that none can go wrong:
    ///
    /// ```
    /// use rwf::comms::Presence;
    /// use rwf::prelude::*;
    /// use std::thread;
    ///
    /// fn announce(rooms: &Presence) {
    ///     for change in rooms {
    ///         let what = if change.has_joined() { "has come" } else { "has left" };
    ///         let room = change.comms();
    ///         // That all are too slow, or have left, is no reason to stop.
    ///         let _ = room.send(format!("{} {what}", change.session_id()));
    ///         let names: Vec<_> = room.members().sessions().iter().map(|id| id.to_string()).collect();
    ///         let _ = room.send_latest("members", format!("here are {}", names.join(", ")));
    ///     }
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let rooms = Comms::presence_in("room:")?;
    /// thread::spawn(move || announce(&rooms));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Whoever has come hears that too, as it is in the room by then. What it says at once may arrive before the
    /// announcement, which another thread sends.
    ///
    /// In a [cluster](crate::guide::cluster) the watch sees all nodes. Where each of them runs this, each tells its own
    /// clients: `change.comms().on_this_node()`, with the list of `change.comms().members()`.
    ///
    /// # Errors
    ///
    /// The system has no thread for the watch.
    pub fn presence_in(prefix: impl Into<String>) -> io::Result<Presence> {
        Presence::begin(Scope { receivers: Target::All.into(), prefix: Some(prefix.into()) })
    }
}

impl ServerComms {
    /// Who comes into which topic and who leaves it, like [`Comms::presence_in`].
    ///
    /// # Errors
    ///
    /// The system has no thread for the watch.
    pub fn presence_in(self, prefix: impl Into<String>) -> io::Result<Presence> {
        let receivers = Receivers { server: Some(self.server), ..Target::All.into() };
        Presence::begin(Scope { receivers, prefix: Some(prefix.into()) })
    }
}

/// Who comes and who goes, from [`Comms::presence`] or [`Comms::presence_in`]: a [`Receiver`] of a crossbeam channel, by
/// `Deref`, also in [`select!`](crate::channel::select).
///
/// It tells of sessions, whatever number of tabs each has: a second tab is no join, and that one of two ends is no leave.
/// Those who are there when the watch begins come first, as joins. From then on nobody is missed, and none comes
/// twice: for each session, and each topic, joins and leaves take turns, and all come in the order in which they happened.
/// A connection is there as long as [`Members`](crate::comms::Members) says.
///
/// To take changes slowly holds up nobody and costs a bounded memory: except for 64 that are handed over ahead, a join and
/// a leave that were not taken yet cancel each other, so that no more waits than who is there and who was told to be.
///
/// In a [cluster](crate::guide::cluster) it tells of those on all nodes, but for watches of one server and those
/// [of this node](crate::guide::cluster#who-comes-and-who-goes): a session with tabs on two nodes leaves when the last one has
/// gone. Those who are here come first, and those of each other node follow when it has said who they are. What
/// happens on one node is told in its order, and what happens on several in no particular one.
///
/// A watch has a thread of its own, which ends when it is dropped. Where nobody watches, nothing is done. To watch many
/// topics, watch their common prefix once.
///
/// A loop, `for change in &presence`, over a watch of one server, made with
/// [`ServerHandle::comms`](crate::http::ServerHandle::comms), say, ends when that was shut down, or could not start: by then
/// all were told as left. Any other watch does not end by itself; when the process leaves its cluster, those who are on
/// other nodes are told as left.
pub struct Presence {
    receiver: Receiver<Change>,
    watch: Arc<Watch>,
}

impl Presence {
    fn begin(scope: Scope) -> io::Result<Self> {
        let whose = Whose::of(&scope.receivers);
        let watch = Registry::global().watch(scope);
        let (sender, receiver) = bounded(AHEAD);
        let presence = Self { receiver, watch: Arc::clone(&watch) };
        let hand_over = move || {
            while let Some((member, has_joined)) = watch.next() {
                if sender.send(Change { member, has_joined, whose }).is_err() {
                    return;
                }
            }
        };
        let watching = thread::Builder::new().name("rwf-presence".to_owned()).spawn(hand_over);
        match watching.and_then(|_| presence.begin_elsewhere()) {
            Ok(()) => Ok(presence),
            Err(error) => {
                let text = format!("there is no thread to watch who comes and goes: {error}");
                Err(io::Error::new(error.kind(), text))
            }
        }
    }

    /// Has other nodes of a cluster be asked, where they are meant.
    fn begin_elsewhere(&self) -> io::Result<()> {
        #[cfg(feature = "redis")]
        if self.watch.is_of_all_nodes()
            && let Some(joined) = Registry::global().joined()
        {
            return presence_thread::start(&joined);
        }
        Ok(())
    }
}

impl Deref for Presence {
    type Target = Receiver<Change>;

    fn deref(&self) -> &Receiver<Change> {
        &self.receiver
    }
}

impl<'a> IntoIterator for &'a Presence {
    type Item = Change;
    type IntoIter = Iter<'a, Change>;

    fn into_iter(self) -> Iter<'a, Change> {
        self.receiver.iter()
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        Registry::global().unwatch(&self.watch);
        self.watch.abandon();
    }
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presence").field("scope", self.watch.scope()).finish_non_exhaustive()
    }
}

/// That a session has come, or has gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    member: Member,
    has_joined: bool,
    whose: Whose,
}

/// Whose clients are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    All,
    #[cfg(feature = "redis")]
    ThisNode,
    Server(ServerId),
}

impl Whose {
    fn of(receivers: &Receivers) -> Self {
        match receivers.server {
            Some(server) => Self::Server(server),
            #[cfg(feature = "redis")]
            None if receivers.is_local => Self::ThisNode,
            None => Self::All,
        }
    }
}

impl Change {
    /// Whether it has joined; it has left otherwise.
    #[must_use]
    pub fn has_joined(&self) -> bool {
        self.has_joined
    }

    /// Who it is.
    #[must_use]
    pub fn session_id(&self) -> &SessionId {
        &self.member.session
    }

    /// The topic that it has joined or left; none where connections are watched.
    #[must_use]
    pub fn topic(&self) -> Option<&str> {
        self.member.topic.as_deref()
    }

    /// Those whom it concerns: the subscribers of the topic, or else everyone; of the server, or of the node, that alone is
    /// watched.
    #[must_use]
    pub fn comms(&self) -> Comms {
        let comms = self.topic().map_or_else(Comms::notify, Comms::topic);
        match self.whose {
            Whose::All => comms,
            #[cfg(feature = "redis")]
            Whose::ThisNode => comms.on_this_node(),
            Whose::Server(server) => comms.of_server(server),
        }
    }
}
