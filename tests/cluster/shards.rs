//! A Redis Cluster of a test's own: three masters, and what is done to them.
#![allow(dead_code, reason = "each program uses its part")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(unreachable_pub, reason = "it is a module of each program")]

use std::cell::Cell;
use std::collections::HashSet;
use std::net::TcpStream;
use std::ops::RangeInclusive;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::Folder;
use crate::common::tls::Identity;
use crate::redis::{Redis, free_address};

const DEADLINE: Duration = Duration::from_secs(30);
const SLOTS: usize = 16_384;

/// One with a port for others, and with one for TLS.
#[derive(Debug, Clone)]
struct Ports {
    bus: String,
    tls: u16,
}

fn start(folder: &Folder, is_secure: bool) -> (Redis, Ports) {
    let path = |name: &str| folder.0.join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (path("cert.pem"), path("key.pem"));
    Redis::start_where(|| {
        let (bus, tls) = (free_address().port().to_string(), free_address().port());
        let tls_port = tls.to_string();
        let mut arguments = vec![
            ("--cluster-enabled", "yes"),
            ("--cluster-port", &bus),
            ("--cluster-node-timeout", "3000"),
            ("--repl-diskless-sync-delay", "0"),
            ("--dir", folder.0.to_str().unwrap()),
        ];
        if is_secure {
            arguments.extend([
                ("--tls-cluster", "yes"),
                ("--tls-port", &*tls_port),
                ("--tls-cert-file", &*certificate),
                ("--tls-key-file", &*key),
                ("--tls-ca-cert-file", &*certificate),
                ("--tls-auth-clients", "no"),
            ]);
        }
        let arguments = arguments.iter().flat_map(|(name, value)| [*name, *value]);
        (arguments.map(ToOwned::to_owned).collect(), Ports { bus: bus.clone(), tls })
    })
}

#[derive(Debug)]
pub struct Shards {
    pub masters: Vec<Redis>,
    ids: Vec<String>,
    ports: Vec<Ports>,
    folders: Vec<Folder>,
}

impl Shards {
    pub fn start() -> Self {
        Self::start_over(None)
    }

    /// Over TLS as well, which they talk to each other through. Nodes get `root_certificates`.
    pub fn start_secure(identity: &Identity) -> Self {
        Self::start_over(Some(identity))
    }

    fn start_over(identity: Option<&Identity>) -> Self {
        let folders: Vec<_> = (0..3).map(|_| Folder::new()).collect();
        for folder in folders.iter().filter(|_| identity.is_some()) {
            folder.write("cert.pem", &identity.unwrap().certificate_pem);
            folder.write("key.pem", &identity.unwrap().key_pem);
        }
        let (masters, ports): (Vec<_>, Vec<_>) =
            folders.iter().map(|folder| start(folder, identity.is_some())).unzip();
        for (at, master) in masters.iter().enumerate() {
            let (first, last) = (at * SLOTS / 3, (at + 1) * SLOTS / 3 - 1);
            assert_eq!(master.ask(&format!("CLUSTER ADDSLOTSRANGE {first} {last}")), "+OK");
            assert_eq!(master.ask(&format!("CLUSTER SET-CONFIG-EPOCH {}", at + 1)), "+OK");
            let (plain, bus) = (master.address.port(), &ports[at].bus);
            let port = if identity.is_some() { ports[at].tls } else { plain };
            assert_eq!(masters[0].ask(&format!("CLUSTER MEET 127.0.0.1 {port} {bus}")), "+OK");
        }
        let id = |master: &Redis| master.ask_all("CLUSTER MYID").lines().nth(1).unwrap().to_owned();
        let ids = masters.iter().map(id).collect();
        let shards = Self { masters, ids, ports, folders };
        shards.wait_until_whole();
        shards
    }

    /// Has a replica of a master join, which takes its place when it dies.
    pub fn add_replica(&mut self, master: usize) -> Redis {
        let folder = Folder::new();
        let (replica, Ports { bus, .. }) = start(&folder, false);
        let port = replica.address.port();
        assert_eq!(self.masters[0].ask(&format!("CLUSTER MEET 127.0.0.1 {port} {bus}")), "+OK");
        let replicate = format!("CLUSTER REPLICATE {}", self.ids[master]);
        self.wait_until("it is one", || replica.ask(&replicate) == "+OK");
        let is_in_step = || replica.ask_all("INFO replication").contains("link_status:up");
        self.wait_until("it is in step", is_in_step);
        let id = replica.ask_all("CLUSTER MYID").lines().nth(1).unwrap().to_owned();
        // Others vote for one that they know.
        let is_known = |nodes: String| {
            nodes.lines().any(|line| {
                line.starts_with(&id) && line.contains("slave ") && line.contains(" connected")
            })
        };
        self.wait_until("all know it", || {
            self.masters.iter().all(|master| is_known(master.ask_all("CLUSTER NODES")))
        });
        self.wait_until("it knows all", || {
            replica.ask_all("CLUSTER NODES").matches(" connected").count() == 4
        });
        self.folders.push(folder);
        replica
    }

    #[track_caller]
    pub fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !is_so() {
            assert!(Instant::now() < deadline, "waited in vain until {what}: {}", self.told());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until each knows of all.
    #[track_caller]
    pub fn wait_until_whole(&self) {
        for master in &self.masters {
            self.wait_until("it is whole", || {
                let info = master.ask_all("CLUSTER INFO");
                let nodes = master.ask_all("CLUSTER NODES");
                let is_known = |id: &String| {
                    nodes.lines().any(|line| line.contains(&**id) && line.contains(" connected"))
                };
                info.contains("cluster_state:ok")
                    && info.contains("cluster_slots_ok:16384")
                    && self.ids.iter().all(is_known)
            });
        }
    }

    /// Waits until all say the same of who has which slots, and since which epoch. Moves of a slot before all know the newest
    /// epoch could leave it with nobody: who gives it away may have claimed it anew a moment before.
    #[track_caller]
    pub fn wait_until_agreed(&self) {
        let (began, mends) = (Instant::now(), Cell::new(0));
        self.wait_until("all agree", || {
            let views: Vec<_> = self.masters.iter().map(View::of).collect();
            let agree = views.iter().all(|view| *view == views[0] && view.has_distinct_epochs());
            if !agree && began.elapsed() > Duration::from_secs(2) * (mends.get() + 1) {
                self.mend(&views);
                mends.set(mends.get() + 1);
            }
            agree
        });
    }

    /// Settles what masters would disagree on for ever, as `redis-cli --cluster fix` does: a slot that two claim since the same
    /// epoch, or one that each says another has.
    fn mend(&self, views: &[View]) {
        for slot in 0..SLOTS {
            let owners = views.iter().map(|view| view.owner(slot)).collect::<Vec<_>>();
            if owners.iter().all(|owner| owner.is_some() && owner == &owners[0]) {
                continue;
            }
            let claims = |master: &usize| owners[*master] == Some(&self.ids[*master]);
            let owner = (0..3).find(claims).unwrap_or(0);
            for master in 0..3 {
                self.tell_of_slot(master, slot, owner);
            }
            self.masters[owner].ask("CLUSTER BUMPEPOCH");
        }
    }

    /// What each master knows of all.
    pub fn told(&self) -> String {
        let nodes = self.masters.iter().map(|master| {
            // One may be dead.
            TcpStream::connect(master.address).map(|_| master.ask_all("CLUSTER NODES"))
        });
        nodes.flatten().collect()
    }

    pub fn url(&self) -> String {
        self.masters[0].url()
    }

    pub fn secure_url(&self) -> String {
        format!("rediss://localhost:{}/", self.ports[0].tls)
    }

    /// The setting of nodes that come through TLS.
    pub fn roots(&self) -> String {
        format!("root_certificates={}", self.folders[0].0.join("cert.pem").display())
    }

    pub fn slot(&self, channel: &str) -> usize {
        let answer = self.masters[0].ask(&format!("CLUSTER KEYSLOT {channel}"));
        answer.strip_prefix(':').unwrap().parse().unwrap()
    }

    /// The master that a channel's slot was at in the beginning.
    pub fn master_of(&self, channel: &str) -> usize {
        (self.slot(channel) * 3 / SLOTS).min(2)
    }

    /// How many hear a channel at a master.
    pub fn subscribers(&self, master: usize, channel: &str) -> usize {
        let answer = self.masters[master].ask_all(&format!("PUBSUB SHARDNUMSUB {channel}"));
        let count = answer.lines().find_map(|line| line.strip_prefix(':'));
        count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{answer:?}"))
    }

    /// Moves a slot, in the order in which `redis-cli --cluster reshard` does. Moves in quick succession of which masters have
    /// not told each other leave slots that nobody has.
    #[track_caller]
    pub fn move_slot(&self, slot: usize, from: usize, to: usize) {
        self.wait_until_agreed();
        assert!(self.try_to_move_slot(slot, from, to), "master {from} does not have {slot}");
    }

    /// The same, from whoever has it: after a failure Redis may have decided otherwise. Whether somebody had it.
    #[track_caller]
    pub fn move_slot_to(&self, slot: usize, to: usize) -> bool {
        self.wait_until_agreed();
        (0..3).any(|from| from != to && self.try_to_move_slot(slot, from, to))
    }

    /// Has one master believe that another one has a slot.
    pub fn tell_of_slot(&self, master: usize, slot: usize, owner: usize) {
        let owner = &self.ids[owner];
        let answer = self.masters[master].ask(&format!("CLUSTER SETSLOT {slot} NODE {owner}"));
        assert_eq!(answer, "+OK");
    }

    fn try_to_move_slot(&self, slot: usize, from: usize, to: usize) -> bool {
        let (source, target) = (&self.ids[from], &self.ids[to]);
        let tell = |master: usize, what: &str| {
            self.masters[master].ask(&format!("CLUSTER SETSLOT {slot} {what}")) == "+OK"
        };
        tell(from, &format!("MIGRATING {target}"))
            && tell(to, &format!("IMPORTING {source}"))
            && tell(to, &format!("NODE {target}"))
            && tell(from, &format!("NODE {target}"))
            && (0..3).all(|other| tell(other, &format!("NODE {target}")))
    }
}

/// What one master says of all: ids, epochs and slots.
#[derive(PartialEq)]
struct View(Vec<(String, u64, Vec<RangeInclusive<usize>>)>);

impl View {
    fn of(master: &Redis) -> Self {
        let nodes = master.ask_all("CLUSTER NODES");
        let masters = nodes.lines().filter(|line| line.contains("master"));
        let mut masters: Vec<_> = masters
            .map(|line| {
                let words: Vec<_> = line.split(' ').collect();
                let ranges = words[8..].iter().filter(|word| !word.starts_with('['));
                let range = |word: &&str| {
                    let (first, last) = word.split_once('-').unwrap_or((word, word));
                    first.parse().unwrap()..=last.parse().unwrap()
                };
                (words[0].to_owned(), words[6].parse().unwrap(), ranges.map(range).collect())
            })
            .collect();
        masters.sort_by(|one, other| one.0.cmp(&other.0));
        Self(masters)
    }

    fn has_distinct_epochs(&self) -> bool {
        let epochs: HashSet<_> = self.0.iter().map(|(_, epoch, _)| epoch).collect();
        epochs.len() == self.0.len()
    }

    fn owner(&self, slot: usize) -> Option<&String> {
        let has = |ranges: &[RangeInclusive<usize>]| ranges.iter().any(|it| it.contains(&slot));
        self.0.iter().find(|(_, _, ranges)| has(ranges)).map(|(id, ..)| id)
    }
}
