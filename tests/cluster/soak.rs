//! Random faults, from a seed that is printed, while honest clients talk: three nodes over one Redis, for as many seconds as
//! the first argument says, 60 by default. The second argument is the seed.
//!
//! Visitors come and go meanwhile, and each node watches who is there.
//!
//! It fails when a client on the sender's own node misses anything, has to wait long, or sees a message twice or out of order;
//! when one on another node misses anything that is not told; when a watch tells somebody twice, or at the end others than are
//! there; or when the nodes are not themselves again at the end.
#![allow(clippy::unwrap_used, reason = "a panic ends the run with its message")]

#[path = "../common/mod.rs"]
#[cfg(unix)]
mod common;
#[path = "process.rs"]
#[cfg(unix)]
mod process;
#[path = "redis.rs"]
#[cfg(unix)]
mod redis;

#[cfg(unix)]
fn main() {
    unix::main();
}

#[cfg(not(unix))]
fn main() {
    eprintln!("it starts and ends processes as Unix does");
}

#[cfg(unix)]
mod unix {
    use std::collections::{BTreeSet, HashMap};
    use std::env;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::thread::{self, JoinHandle};
    use std::time::{Duration, Instant, SystemTime};

    use crate::common::{Random, Raw};
    use crate::process::Node;
    use crate::redis::{Proxy, Redis, is_installed};

    const NODES: usize = 3;
    const SETTINGS: [&str; 7] = [
        "probe_interval=200",
        "probe_timeout=1000",
        "connect_timeout=1000",
        "subscribe_timeout=300",
        "max_reconnect_delay=300",
        "max_waiting_age=3000",
        "presence_lease=4000",
    ];
    /// What happens on one node is there at once, on however busy a machine.
    const SLOW: Duration = Duration::from_secs(2);

    pub(crate) fn main() {
        if !is_installed() {
            return;
        }
        let argument = |at| env::args().nth(at).map(|text| text.parse::<u64>().expect("a number"));
        let time = Duration::from_secs(argument(1).unwrap_or(60));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let seed = argument(2).unwrap_or(now.as_secs());
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let mut redis = Redis::start();
        let proxy = Proxy::start(redis.address);
        // One of them is behind a network that fails.
        let mut nodes: Vec<_> =
            [proxy.url(), redis.url(), redis.url()].map(|url| Node::start(&url, &SETTINGS)).into();
        let is_over = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = nodes.iter().map(|node| Reader::start(node, &is_over)).collect();
        let mut visitors = Visitors::begin(&mut nodes);
        let mut next = [0_u64; NODES];
        // Of nodes that were never heard nobody knows what is missing.
        for from in 0..NODES {
            say_one(&mut nodes[from], from, &mut next[from]);
        }
        let (began, mut faults, mut slowest) = (Instant::now(), 0, Duration::ZERO);
        while !have_heard_all(&readers, &next) {
            assert!(began.elapsed() < SLOW, "the nodes do not hear each other");
            thread::sleep(Duration::from_millis(1));
        }
        while began.elapsed() < time {
            let until = Instant::now() + Duration::from_millis(200 + random.below(800) as u64);
            while Instant::now() < until {
                slowest = slowest.max(say(&mut nodes, &readers, &mut next, &mut random));
                visitors.come_or_go(&mut nodes, &mut random);
            }
            harm(&mut redis, &proxy, &mut nodes, &mut random, |nodes, random| {
                slowest = slowest.max(say(nodes, &readers, &mut next, random));
            });
            faults += 1;
        }
        for node in &mut nodes {
            node.wait_until_connected(true);
            node.wait_until("all is sent or lost", |node| node.count("waiting_messages") == 0);
        }
        // What is missing before these is seen now.
        for from in 0..NODES {
            say_one(&mut nodes[from], from, &mut next[from]);
        }
        visitors.finish(&mut nodes);
        finish(&mut nodes, readers, &next, &is_over);
        println!(
            "{faults} faults, {} messages, slowest local echo {slowest:?}",
            next.iter().sum::<u64>()
        );
        println!("everything held");
    }

    fn say_one(node: &mut Node, from: usize, next: &mut u64) {
        node.ask(&format!("send topic:room {from} {next}"));
        *next += 1;
    }

    /// One of the nodes says the next number to the room; how long its own client waited for it.
    fn say(
        nodes: &mut [Node],
        readers: &[Reader],
        next: &mut [u64; NODES],
        random: &mut Random,
    ) -> Duration {
        let from = random.below(NODES);
        let began = Instant::now();
        let number = next[from];
        say_one(&mut nodes[from], from, &mut next[from]);
        while readers[from].next_of(from) <= number {
            assert!(began.elapsed() < SLOW, "the own client of node {from} did not get {number}");
            thread::sleep(Duration::from_micros(200));
        }
        began.elapsed()
    }

    fn harm(
        redis: &mut Redis,
        proxy: &Proxy,
        nodes: &mut [Node],
        random: &mut Random,
        mut meanwhile: impl FnMut(&mut [Node], &mut Random),
    ) {
        let mut talk = |nodes: &mut [Node], random: &mut Random| {
            let until = Instant::now() + Duration::from_millis(random.below(1500) as u64);
            while Instant::now() < until {
                meanwhile(nodes, random);
            }
        };
        match random.below(7) {
            0 => {
                redis.kill();
                talk(nodes, random);
                redis.start_again();
            }
            1 => {
                redis.pause();
                talk(nodes, random);
                redis.go_on();
            }
            2 => drop(redis.ask("CLIENT KILL TYPE pubsub")),
            3 => drop(redis.ask("FLUSHALL")),
            4 => {
                proxy.delay(Duration::from_millis(random.below(50) as u64));
                talk(nodes, random);
                proxy.delay(Duration::ZERO);
            }
            5 => proxy.cut(),
            _ => {
                // A node that comes for a moment, hangs, and dies.
                let url = redis.url();
                if let Ok(guest) = Node::try_start(&url, &SETTINGS) {
                    guest.pause();
                    talk(nodes, random);
                    guest.go_on();
                }
            }
        }
    }

    fn have_heard_all(readers: &[Reader], next: &[u64; NODES]) -> bool {
        readers.iter().all(|reader| (0..NODES).all(|from| reader.next_of(from) >= next[from]))
    }

    /// Everything that was said was heard or is known to be missing, in order and once.
    fn finish(nodes: &mut [Node], readers: Vec<Reader>, next: &[u64; NODES], is_over: &AtomicBool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !have_heard_all(&readers, next) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        is_over.store(true, Ordering::Relaxed);
        for (number, (node, reader)) in nodes.iter_mut().zip(readers).enumerate() {
            let counts = reader.thread.join().unwrap();
            let of = |from: usize| counts.get(&from).copied().unwrap_or_default();
            assert_eq!(of(number), next[number], "node {number}: its own client missed something");
            let said: u64 = (0..NODES).filter(|from| *from != number).map(|from| next[from]).sum();
            let came: u64 = (0..NODES).filter(|from| *from != number).map(of).sum();
            // It is told on a thread of its own; what nodes say about visitors is missed too, and does not count.
            node.wait_until("each is here or told as missed", |node| {
                came + node.ask("missed room").parse::<u64>().unwrap() >= said
            });
            let missed: u64 = node.ask("missed room").parse().unwrap();
            println!(
                "node {number}: of {said} messages {came} came, {missed} are told as missed; {}",
                node.ask("status")
            );
            assert_eq!(came + missed, said, "node {number}: {}", node.log());
        }
    }

    /// Clients that come into a hall and leave it, on any node, and whom each node's watch has told to be there.
    struct Visitors {
        there: Vec<(Raw, String)>,
        told: [BTreeSet<String>; NODES],
    }

    impl Visitors {
        fn begin(nodes: &mut [Node]) -> Self {
            for node in nodes {
                node.ask("watch hall topic:hall");
            }
            Self { there: Vec::new(), told: Default::default() }
        }

        fn come_or_go(&mut self, nodes: &mut [Node], random: &mut Random) {
            if random.below(20) == 0 && self.there.len() < 50 {
                let name = format!("visitor{}", random.below(10));
                let (mut client, _) = nodes[random.below(NODES)].connect(&name);
                client.send_text("join hall");
                assert_eq!(client.text_frame(), "joined hall");
                self.there.push((client, format!("@{name}/hall")));
            } else if random.below(20) == 0 && !self.there.is_empty() {
                drop(self.there.swap_remove(random.below(self.there.len())));
            }
            let at = random.below(NODES);
            self.look(nodes, at);
        }

        fn look(&mut self, nodes: &mut [Node], at: usize) {
            let changes = nodes[at].ask("changes hall");
            for change in changes.split(' ').filter(|change| !change.is_empty()) {
                let (sign, who) = change.split_at(1);
                let told = &mut self.told[at];
                let is_news = if sign == "+" { told.insert(who.into()) } else { told.remove(who) };
                assert!(is_news, "node {at} has told {change} twice");
            }
        }

        fn finish(&mut self, nodes: &mut [Node]) {
            let there: BTreeSet<_> = self.there.iter().map(|(_, who)| who.clone()).collect();
            let deadline = Instant::now() + Duration::from_secs(20);
            for at in 0..NODES {
                while self.told[at] != there {
                    assert!(
                        Instant::now() < deadline,
                        "node {at} has told {:?} to be there, and {there:?} are",
                        self.told[at]
                    );
                    thread::sleep(Duration::from_millis(10));
                    self.look(nodes, at);
                }
            }
        }
    }

    /// A client that listens to the room on one node.
    struct Reader {
        /// The next number that is expected of each node.
        heard: Arc<[AtomicU64; NODES]>,
        thread: JoinHandle<HashMap<usize, u64>>,
    }

    impl Reader {
        fn start(node: &Node, is_over: &Arc<AtomicBool>) -> Self {
            let mut client = Raw::open(node.address, "/reader");
            client.send_text("join room");
            while client.text_frame() != "joined room" {}
            client.stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            let heard: Arc<[AtomicU64; NODES]> = Arc::default();
            let (numbers, is_over) = (Arc::clone(&heard), Arc::clone(is_over));
            let thread = thread::spawn(move || {
                let mut counts = HashMap::new();
                while !is_over.load(Ordering::Relaxed) {
                    let Ok(frame) = client.try_frame() else { continue };
                    let frame = frame.expect("it is not closed");
                    if frame.first == 0x89 {
                        client.send_frame(0x8a, &frame.payload);
                        continue;
                    }
                    let text = String::from_utf8(frame.payload).unwrap();
                    let (from, number) = text.split_once(' ').unwrap();
                    let (from, number): (usize, u64) =
                        (from.parse().unwrap(), number.parse().unwrap());
                    let expected = numbers[from].load(Ordering::Relaxed);
                    assert!(number >= expected, "node {from}: {number} after {expected}");
                    numbers[from].store(number + 1, Ordering::Relaxed);
                    *counts.entry(from).or_default() += 1;
                }
                counts
            });
            Self { heard, thread }
        }

        /// The next number that is expected of a node.
        fn next_of(&self, from: usize) -> u64 {
            self.heard[from].load(Ordering::Relaxed)
        }
    }
}
