//! Several processes that share their sessions and topics over a Redis: how a program says so, and how it is going.

use std::fmt;
use std::mem;
#[cfg(feature = "tls")]
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
#[cfg(feature = "tls")]
use rustls::ClientConfig;

use crate::base::contained::contained;
use crate::base::rule::{self, Checked, Unfit};
use crate::comms::arrivals::Mailroom;
use crate::comms::crossing;
use crate::comms::gaps::{Gap, Gaps, Hook};
use crate::comms::joined::{Channels, Joined};
use crate::comms::notices::{Notice, Pulse};
use crate::comms::presence_thread;
use crate::comms::registry::Registry;
use crate::comms::relay;
use crate::comms::relayed_requests::RelayedRequests;
use crate::comms::remote_presence::RemotePresence;
use crate::comms::survey::Survey;
use crate::redis::address::Address;
use crate::redis::dialer::Dialer;
use crate::redis::link::NoLink;
use crate::redis::links::Links;
use crate::redis::node::NodeId;
use crate::redis::settings::Settings;
#[cfg(feature = "tls")]
use crate::redis::trust::Trust;

/// How long the last node that leaves waits for Redis to take what was sent before.
const LEAVE_PATIENCE: Duration = Duration::from_secs(1);

/// Several processes of a program, its *nodes*, that share their sessions and topics over a Redis: `Comms` means the clients
/// of all of them then, and nothing else in the program changes. With the feature `redis`.
///
/// ```no_run
/// use rwf::http::{self, Server};
/// use rwf::prelude::*;
///
/// # fn chat(_: Socket) -> Result<(), Error> { Ok(()) }
/// fn main() -> Result<(), http::Error> {
///     let cluster = Cluster::redis("redis://127.0.0.1/").prefix("chat");
///     Server::new(vec![route!("/chat" => websocket(chat))]).cluster(cluster).run()
/// }
/// ```
///
/// Those who are on the same node get a message at once and in order, whatever Redis does; the others get it through Redis,
/// and what one thread sends to one connection arrives in that order there too. While Redis is away a node is on its own:
/// it serves its clients, connects again for ever, and says so, in the log, in [`status`](Self::status) and to
/// [`on_gap`](Self::on_gap). [The guide](crate::guide::cluster) says what is promised and what it costs.
///
/// It is the process that joins: all servers of a process that are in a cluster are in the same one. A clone is the same
/// cluster, to ask for its [`status`](Self::status) when a server has the other.
#[derive(Clone)]
pub struct Cluster {
    address: Result<Address, String>,
    prefix: String,
    #[cfg(feature = "tls")]
    trust: Trust,
    settings: Settings,
    hook: Option<Hook>,
    /// What clones have in common.
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stage: Mutex<Stage>,
    changed: Condvar,
}

#[derive(Default)]
enum Stage {
    #[default]
    Out,
    /// A thread joins or leaves.
    Changing,
    In(Membership),
}

/// What a process has while it is in the cluster.
struct Membership {
    joined: Arc<Joined>,
    gaps: Option<(Arc<Gaps>, JoinHandle<()>)>,
    /// How many servers are in it.
    servers: usize,
}

/// Keeps the process in the cluster.
pub(crate) struct Member(Arc<Shared>);

/// Why a process cannot join.
#[derive(Debug)]
pub(crate) enum NotJoined {
    Setting(Unfit),
    Redis { address: String, reason: String },
    Thread(std::io::Error),
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty)*) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(mut self, $name: $type) -> Self {
            self.settings.$name = $name;
            self
        })*
    };
}

impl Cluster {
    /// Over the Redis at `url`, version 6 or newer, or whatever else speaks its protocol RESP3 (Valkey, KeyDB, Dragonfly):
    /// `redis://host`, `redis://user:password@host:6379/2`, `rediss://host` for TLS, or `unix:///run/redis/redis.sock?db=2`. Special characters in
    /// names and passwords are escaped as in every URL. What is wrong with it is an error when the server starts; it is
    /// never shown.
    ///
    /// Its user needs the commands `HELLO`, `PUBLISH`, `SUBSCRIBE` and `UNSUBSCRIBE`, and `SELECT` where a database is
    /// named, and the channels that begin with the [prefix](Self::prefix). No keys are read or written.
    ///
    /// Any node of a Redis Cluster, version 7 or newer, stands for all of it: that it is one is found out, and messages go
    /// through [all of its masters](crate::guide::cluster#a-redis-cluster). The user needs `HELLO`, `SPUBLISH`, `SSUBSCRIBE`,
    /// `SUNSUBSCRIBE` and `CLUSTER SLOTS` there.
    ///
    /// `rediss://` needs the feature `tls`, and believes the public authorities, as browsers do, and the name or the IP address
    /// that stands in the URL; [`root_certificates`](Self::root_certificates) names others.
    ///
    /// A replica is refused at the start.
    #[must_use]
    pub fn redis(url: impl AsRef<str>) -> Self {
        Self {
            address: Address::parse(url.as_ref()),
            prefix: "rwf".to_owned(),
            #[cfg(feature = "tls")]
            trust: Trust::default(),
            settings: Settings::default(),
            hook: None,
            shared: Arc::default(),
        }
    }

    /// How the names of this cluster's channels begin. Default `rwf`. Clusters that share a Redis need prefixes of their
    /// own. One has no `:`, which ends it in those names.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The authorities that are believed over `rediss://`, in a PEM file, in place of the public ones: a provider's own, or
    /// that of one's own network. A certificate that signs itself is its own authority. With the feature `tls`. The file is
    /// read when the server starts; one that cannot be used is an error then.
    ///
    /// ```
    /// use rwf::prelude::*;
    ///
    /// let cluster = Cluster::redis("rediss://redis.example:6380/").root_certificates("ca.pem");
    /// # let _ = cluster;
    /// ```
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn root_certificates(mut self, file: impl Into<PathBuf>) -> Self {
        self.trust = Trust::File(file.into());
        self
    }

    /// TLS of the program's own for `rediss://`, for what [`root_certificates`](Self::root_certificates) does not give: a
    /// certificate of this node, where Redis wants one (`tls-auth-clients`, which is its default), or other ciphers. It is
    /// used as it is, in place of the public authorities and of `root_certificates`. With the feature `tls`.
    ///
    /// ```
    /// use rwf::prelude::*;
    /// use rwf::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    /// use rwf::rustls::{self, ClientConfig, RootCertStore};
    ///
    /// fn cluster(
    ///     roots: RootCertStore,
    ///     certificate: CertificateDer<'static>,
    ///     key: PrivateKeyDer<'static>,
    /// ) -> Result<Cluster, rustls::Error> {
    ///     let provider = rustls::crypto::ring::default_provider();
    ///     let config = ClientConfig::builder_with_provider(provider.into())
    ///         .with_safe_default_protocol_versions()?
    ///         .with_root_certificates(roots)
    ///         .with_client_auth_cert(vec![certificate], key)?;
    ///     Ok(Cluster::redis("rediss://redis.example/").tls_config(config))
    /// }
    /// # let _ = cluster;
    /// ```
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls_config(mut self, config: impl Into<Arc<ClientConfig>>) -> Self {
        self.trust = Trust::Program(config.into());
        self
    }

    /// Calls `hook` when messages were lost, when Redis is away and when it is back: to have clients load what they show
    /// anew, say. It runs on a thread of its own, one gap after the other, and may take its time: what waits meanwhile is
    /// added up.
    ///
    /// ```
    /// use rwf::cluster::Gap;
    /// use rwf::prelude::*;
    ///
    /// let cluster = Cluster::redis("redis://127.0.0.1/").on_gap(|gap| {
    ///     log::warn!("{gap}");
    ///     if let Gap::Missed { comms, .. } = gap {
    ///         let _ = comms.send("reload");
    ///     }
    /// });
    /// # let _ = cluster;
    /// ```
    #[must_use]
    pub fn on_gap(mut self, hook: impl Fn(&Gap) + Send + Sync + 'static) -> Self {
        self.hook = Some(Arc::new(hook));
        self
    }

    setters! {
        /// How long connecting to Redis may take, and each step of what is said at the beginning. Default 5 s. The system
        /// looks a name up in its own time (`timeout` and `attempts` in `resolv.conf`); an IP address takes none.
        connect_timeout: Duration
        /// How long the 101 of a new WebSocket waits until Redis brings what other nodes send to its session, and how long
        /// the first subscriber of a topic does. Default 1 s; then the client gets in nevertheless. Nobody waits while Redis
        /// is known to be away, or has let somebody wait so long. Zero does not wait.
        subscribe_timeout: Duration
        /// How long other nodes may take to say who is there: for [`Comms::is_connected`](crate::comms::Comms::is_connected)
        /// and [`Members`](crate::comms::Members). Default 1 s; then whoever asks is told what is known, and
        /// [`ClusterStatus::unanswered`] counts it. Nobody is asked while Redis is away. Zero does not ask.
        ask_timeout: Duration
        /// How long a node may say nothing until [watches](crate::comms::Comms::presence) of others tell that all who were
        /// there have left. Default 15 s, at least 100 ms. Nodes that watch, and those that are watched, say four times in it
        /// that they are there: a long one costs less, and has those who have crashed seem to be there for longer; a node
        /// that stops says so. While Redis is away nobody is taken for gone. It should be longer than
        /// [`max_reconnect_delay`](Self::max_reconnect_delay), within which all nodes come back from that.
        presence_lease: Duration
        /// How often a node sends a message to itself, to see that Redis is there, or asks each master of a Redis Cluster what
        /// it is. Default 5 s.
        probe_interval: Duration
        /// How long Redis may say nothing when it has something to say. Default 5 s, then the connection is given up, and
        /// another one is made.
        probe_timeout: Duration
        /// The longest pause between attempts to connect to a Redis that is away. Default 5 s. The first comes after 50 ms,
        /// and pauses double, each shortened at random by up to a half.
        max_reconnect_delay: Duration
        /// The largest message that goes to other nodes, in bytes, with the few that say for whom it is. Default 16 MiB. A
        /// larger one is counted as lost. Redis ends the connection of every node that hears one above its
        /// `client-output-buffer-limit pubsub`, 32 MB by default: raise that before this.
        max_message_size: usize
        /// The most bytes that wait for Redis, or for each master of a Redis Cluster, and for its confirmation, with an honest
        /// overhead for each message. Default 16 MiB. What does not fit does not get to the other nodes, and is counted as lost. One message always fits.
        max_waiting_bytes: usize
        /// How long a message waits for Redis to come back. Default 10 s, then it is counted as lost. It is published
        /// when this node is back there: nodes that come back later miss it, and see that.
        max_waiting_age: Duration
    }

    /// How it is going: whether Redis is there, what has gone through it, and what was lost.
    #[must_use]
    pub fn status(&self) -> ClusterStatus {
        let stage = self.shared.stage.lock();
        let Stage::In(Membership { joined, .. }) = &*stage else { return ClusterStatus::default() };
        let joined = Arc::clone(joined);
        drop(stage);
        let (link, health, load) = (&joined.link, joined.link.health(), joined.link.load());
        let tally = link.tally();
        ClusterStatus {
            node: Some(joined.node),
            is_connected: health.is_up,
            since: Some(health.since.elapsed()),
            reason: health.reason,
            round_trip: health.round_trip,
            subscriptions: link.subscriptions(),
            waiting_messages: load.messages,
            waiting_bytes: load.bytes,
            published: tally.published.get(),
            received: tally.received.get(),
            lost: tally.lost.get(),
            missed: tally.missed.get(),
            repeated: tally.repeated.get(),
            unknown: tally.unknown.get(),
            unanswered: tally.unanswered.get(),
            reconnects: tally.reconnects.get(),
        }
    }

    fn check(&self) -> Checked {
        if let Err(reason) = &self.address {
            return Err(Unfit { name: "Cluster::redis", reason: reason.clone() });
        }
        let is_odd = |char: char| char == ':' || char.is_control();
        let is_fit = |prefix: &str| !prefix.is_empty() && !prefix.chars().any(is_odd);
        let prefix = [self.prefix.clone()];
        rule::all("prefix", &prefix, is_fit, "has to be a text without : and control characters")?;
        self.settings.check()
    }

    /// How to get there. What TLS needs is read here.
    fn dialer(&self) -> Result<Dialer, Unfit> {
        let unfit = |reason: String| Unfit { name: "Cluster::redis", reason };
        let address = self.address.clone().map_err(unfit)?;
        #[cfg(feature = "tls")]
        let tls = match (address.is_secure, self.trust.setting()) {
            (true, _) => Some(self.trust.config()?),
            (false, None) => None,
            (false, Some(name)) => {
                let reason = "is for an address that begins with rediss://, and this one does not";
                return Err(Unfit { name, reason: reason.to_owned() });
            }
        };
        Ok(Dialer {
            address,
            #[cfg(feature = "tls")]
            tls,
        })
    }

    /// Takes the process into the cluster, unless it is in it already.
    pub(crate) fn join(&self) -> Result<Member, NotJoined> {
        self.check().map_err(NotJoined::Setting)?;
        let mut stage = self.shared.stage.lock();
        while matches!(*stage, Stage::Changing) {
            self.shared.changed.wait(&mut stage);
        }
        if let Stage::In(membership) = &mut *stage {
            membership.servers += 1;
            return Ok(Member(Arc::clone(&self.shared)));
        }
        *stage = Stage::Changing;
        drop(stage);
        let entered = self.enter();
        let mut stage = self.shared.stage.lock();
        let result = match entered {
            Ok(membership) => {
                let node = membership.joined.node;
                *stage = Stage::In(membership);
                Ok((node, Member(Arc::clone(&self.shared))))
            }
            Err(error) => {
                *stage = Stage::Out;
                Err(error)
            }
        };
        drop(stage);
        self.shared.changed.notify_all();
        let (node, member) = result?;
        // Now, since a logger may start a server, which would wait for the change.
        if let Ok(address) = &self.address {
            let prefix = &self.prefix;
            contained(|| {
                log::info!(
                    target: "rwf::cluster",
                    "this node has joined the cluster node={node} redis={address} prefix={prefix:?}"
                );
            });
        }
        Ok(member)
    }

    fn enter(&self) -> Result<Membership, NotJoined> {
        let dialer = self.dialer().map_err(NotJoined::Setting)?;
        if !process::take() {
            let reason = "has to be the same for all servers of the process, and is another one";
            return Err(NotJoined::Setting(Unfit { name: "cluster", reason: reason.to_owned() }));
        }
        let entered = self.enter_at(dialer);
        if entered.is_err() {
            process::give_back();
        }
        entered
    }

    fn enter_at(&self, dialer: Dialer) -> Result<Membership, NotJoined> {
        let node = NodeId::random();
        let address = dialer.address.to_string();
        let channels = Channels::new(&self.prefix, dialer.address.database);
        let gaps = match &self.hook {
            Some(hook) => {
                let gaps = Arc::new(Gaps::default());
                let thread = gaps.start(Arc::clone(hook)).map_err(NotJoined::Thread)?;
                Some((gaps, thread))
            }
            None => None,
        };
        let survey = Arc::new(Survey::default());
        let remote_presence = Arc::new(RemotePresence::new(self.settings.presence_lease));
        let mailroom = Mailroom {
            node,
            channels: channels.clone(),
            gaps: gaps.as_ref().map(|(gaps, _)| Arc::clone(gaps)),
            survey: Arc::clone(&survey),
            unwritten: Mutex::default(),
            remote_presence: Arc::clone(&remote_presence),
        };
        let Settings { ask_timeout, max_message_size, .. } = self.settings;
        let started = Links::start(
            dialer,
            node,
            &channels.node(node),
            &[channels.all(), channels.notices(), channels.notices_for(node)],
            self.settings.clone(),
            Arc::new(mailroom),
        );
        let link = started.map_err(|error| {
            end_gaps(gaps.as_ref().map(|(gaps, _)| gaps));
            match error {
                NoLink::Fault(fault) => NotJoined::Redis { address, reason: fault.to_string() },
                NoLink::Thread(error) => NotJoined::Thread(error),
            }
        })?;
        let joined = Arc::new(Joined {
            link,
            node,
            channels,
            survey,
            ask_timeout,
            max_message_size,
            remote_presence,
            relayed_requests: RelayedRequests::default(),
        });
        // Before others could be told of connections that are named otherwise.
        node.name_process();
        Registry::global().set_joined(Some(Arc::clone(&joined)));
        // Those that watch answer, so that they know at once who is here.
        let call = Pulse { is_calling: true, ..Pulse::default() };
        crossing::tell_all(&joined, &Notice::Pulse(call));
        // The program may have begun to watch before.
        if !joined.remote_presence.is_empty() {
            presence_thread::start_or_log(&joined);
            joined.remote_presence.ring();
        }
        Ok(Membership { joined, gaps, servers: 1 })
    }
}

/// What waits is told still, and the thread ends by itself.
fn end_gaps(gaps: Option<&Arc<Gaps>>) {
    if let Some(gaps) = gaps {
        gaps.end();
    }
}

/// A process that is in no cluster any more, as what it was in it.
struct Left {
    joined: Arc<Joined>,
    gaps: Option<(Arc<Gaps>, JoinHandle<()>)>,
    /// How many messages did not get to the others.
    lost: u64,
}

impl Membership {
    fn leave(self) -> Left {
        let Self { joined, gaps, .. } = self;
        let was_watching = joined.remote_presence.stop();
        NodeId::NONE.name_process();
        // From here on nothing more is posted, but what is said at last.
        Registry::global().set_joined(None);
        relay::forget_all(&joined);
        if was_watching {
            crossing::tell_all(&joined, &Notice::Bye);
        }
        joined.remote_presence.end();
        joined.survey.close();
        let lost = joined.link.stop(LEAVE_PATIENCE);
        process::give_back();
        Left { joined, gaps, lost }
    }
}

impl Left {
    fn tell(self) {
        let Self { joined, gaps, lost } = self;
        joined.link.note_left_behind(lost);
        end_gaps(gaps.as_ref().map(|(gaps, _)| gaps));
        let node = joined.node;
        contained(
            || log::info!(target: "rwf::cluster", "this node has left the cluster node={node}"),
        );
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut stage = self.0.stage.lock();
        while matches!(*stage, Stage::Changing) {
            self.0.changed.wait(&mut stage);
        }
        match &mut *stage {
            Stage::In(membership) if membership.servers > 1 => membership.servers -= 1,
            other => {
                let Stage::In(membership) = mem::replace(other, Stage::Changing) else { return };
                drop(stage);
                let left = membership.leave();
                *self.0.stage.lock() = Stage::Out;
                self.0.changed.notify_all();
                // Now, since a logger may start a server, which would wait for the change.
                left.tell();
            }
        }
    }
}

/// Whether the process is in a cluster: it can be in one.
mod process {
    use std::sync::atomic::{AtomicBool, Ordering};

    static IS_IN: AtomicBool = AtomicBool::new(false);

    /// Whether it was in none.
    pub(super) fn take() -> bool {
        !IS_IN.swap(true, Ordering::SeqCst)
    }

    pub(super) fn give_back() {
        IS_IN.store(false, Ordering::SeqCst);
    }
}

/// Without credentials.
impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("redis", &self.address)
            .field("prefix", &self.prefix)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Member")
    }
}

/// How it is going with a [`Cluster`], as [`Cluster::status`] says.
///
/// Counts begin when the process joins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterStatus {
    /// This process; none before its server has started and after its end.
    pub node: Option<NodeId>,
    /// Whether Redis is there, all masters of a Redis Cluster, and this node hears all that it wants to hear.
    pub is_connected: bool,
    /// Since when that is so, or is not.
    pub since: Option<Duration>,
    /// Why it is not, or was not the last time; of a Redis Cluster with which masters.
    pub reason: Option<String>,
    /// How long the last message of this node to itself took; in a Redis Cluster the last question to the slowest master.
    pub round_trip: Option<Duration>,
    /// How many channels of Redis this node hears: one for each session and each topic that is here, and two.
    pub subscriptions: usize,
    /// How many messages wait for Redis, or for its confirmation.
    pub waiting_messages: usize,
    /// How much that is, as [`max_waiting_bytes`](Cluster::max_waiting_bytes) counts it.
    pub waiting_bytes: usize,
    /// Messages of this node that Redis has confirmed.
    pub published: u64,
    /// Messages of other nodes.
    pub received: u64,
    /// Messages of this node that did not get to the others.
    pub lost: u64,
    /// Messages of other nodes that did not get here, as far as later ones have shown.
    pub missed: u64,
    /// Messages that Redis brought once more, which were passed over.
    pub repeated: u64,
    /// Messages that a newer version of the program must have sent, which were passed over.
    pub unknown: u64,
    /// Nodes that did not say in time who is there, by how often.
    pub unanswered: u64,
    /// How often Redis, or a master of a Redis Cluster, was lost and found again.
    pub reconnects: u64,
}
