//! Who comes and who goes on all nodes of a cluster, told once for each session, and whatever happens to nodes and Redis.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "cluster/process.rs"]
mod process;
#[path = "cluster/redis.rs"]
mod redis;

mod common;

use std::collections::{BTreeSet, HashMap};
use std::thread;
use std::time::{Duration, Instant};

use common::{Random, Raw};
use process::{Node, QUICK, join};
use redis::{Proxy, Redis, is_installed};

/// A node that says nothing is gone in a time that a test has, and none is that has little of the processor.
const SHORT: [&str; 1] = ["presence_lease=4000"];
const DEADLINE: Duration = Duration::from_secs(30);

fn nodes<const N: usize>(url: &str) -> [Node; N] {
    std::array::from_fn(|_| Node::start(url, &QUICK))
}

/// What a watch of a node has told, and whom it has told to be there.
struct Watch {
    name: &'static str,
    told: Vec<String>,
    there: BTreeSet<String>,
}

impl Watch {
    #[track_caller]
    fn begin(node: &mut Node, name: &'static str, command: &str) -> Self {
        assert_eq!(node.ask(command), "");
        Self { name, told: Vec::new(), there: BTreeSet::new() }
    }

    /// Takes what is new: joins and leaves of each take turns.
    #[track_caller]
    fn look(&mut self, node: &mut Node) {
        let changes = node.ask(&format!("changes {}", self.name));
        for change in changes.split(' ').filter(|change| !change.is_empty()) {
            let (sign, who) = change.split_at(1);
            let is_news = match sign {
                "+" => self.there.insert(who.to_owned()),
                "-" => self.there.remove(who),
                _ => panic!("{change}"),
            };
            assert!(is_news, "{change} was told twice: {:?}", self.told);
            self.told.push(change.to_owned());
        }
    }

    #[track_caller]
    fn wait_for(&mut self, node: &mut Node, expected: &[&str]) {
        let deadline = Instant::now() + DEADLINE;
        let expected: BTreeSet<_> = expected.iter().map(ToString::to_string).collect();
        while self.there != expected {
            assert!(
                Instant::now() < deadline,
                "{} are there, not {expected:?}; told: {:?}; {}; log: {}",
                self.there.iter().cloned().collect::<Vec<_>>().join(" "),
                self.told,
                node.ask("status"),
                node.log()
            );
            self.look(node);
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// What was told since the last time.
    fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }
}

#[test]
fn a_session_on_two_nodes_joins_once_and_leaves_when_it_has_left_both() {
    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    let [mut a, b, mut c] = nodes(&redis.url());
    let (alice_b, _) = b.connect("alice");
    let mut watch = Watch::begin(&mut a, "all", "watch all all");
    watch.wait_for(&mut a, &["@alice"]);
    let (alice_c, _) = c.connect("alice");
    let (bob, _) = c.connect("bob");
    watch.wait_for(&mut a, &["@alice", "@bob"]);
    let (alice_a, _) = a.connect("alice");
    drop((alice_b, alice_c, bob));
    watch.wait_for(&mut a, &["@alice"]);
    drop(alice_a);
    watch.wait_for(&mut a, &[]);
    assert_eq!(watch.take(), ["+@alice", "+@bob", "-@bob", "-@alice"]);
    // Whoever watches no more is told nothing, and costs nothing.
    a.ask("unwatch all");
    c.wait_until("nothing is reported", |c| {
        let before = c.count("published");
        let _carol = c.connect("carol");
        thread::sleep(Duration::from_millis(100));
        c.count("published") == before
    });
}

#[test]
fn every_scope_sees_those_who_are_elsewhere_and_nobody_else() {
    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    let [mut a, b, mut c] = nodes(&redis.url());
    let (_alice, _) = a.connect("alice");
    let bob = join(&b, "bob", "room:1");
    let _carol = join(&c, "carol", "room:2");
    let (dave, dave_id) = b.connect("dave");
    let cases = [
        ("all", "watch all all", vec!["@alice", "@bob", "@carol", "@dave"]),
        ("here", "watch here here", vec!["@alice"]),
        ("but", "watch but but:bob", vec!["@alice", "@carol", "@dave"]),
        ("topic", "watch topic topic:room:1", vec!["@bob/room:1"]),
        ("session", "watch session session:carol", vec!["@carol"]),
        ("rooms", "watch_in rooms room:", vec!["@bob/room:1", "@carol/room:2"]),
        ("none", "watch_in none hall:", vec![]),
    ];
    let mut watches: Vec<_> = cases
        .into_iter()
        .map(|(name, command, expected)| (Watch::begin(&mut a, name, command), expected))
        .collect();
    let command = format!("watch tab connection:{dave_id}");
    watches.push((Watch::begin(&mut a, "tab", &command), vec!["@dave"]));
    for (watch, expected) in &mut watches {
        watch.wait_for(&mut a, expected);
    }
    drop((bob, dave));
    let _eve = join(&c, "eve", "room:1");
    let left = |expected: &[&'static str], eve: &'static str| {
        let stay = expected.iter().filter(|who| !who.contains("bob") && !who.contains("dave"));
        stay.copied().chain(Some(eve).filter(|eve| !eve.is_empty())).collect::<Vec<_>>()
    };
    for (watch, expected) in &mut watches {
        let eve = match watch.name {
            "all" | "but" => "@eve",
            "topic" | "rooms" => "@eve/room:1",
            _ => "",
        };
        watch.wait_for(&mut a, &left(expected, eve));
    }
    // Each change was told once.
    let counts: HashMap<_, _> =
        watches.iter().map(|(watch, _)| (watch.name, watch.told.len())).collect();
    let expected = [
        ("all", 7),
        ("here", 1),
        ("but", 5),
        ("topic", 3),
        ("session", 1),
        ("rooms", 4),
        ("none", 0),
        ("tab", 2),
    ];
    assert_eq!(counts, HashMap::from(expected));
    // A node's own watches know of others too, at the same time.
    let mut watch = Watch::begin(&mut c, "all", "watch all all");
    watch.wait_for(&mut c, &["@alice", "@carol", "@eve"]);
    for mut node in [a, b, c] {
        assert_eq!(["lost", "missed", "repeated", "unknown"].map(|name| node.count(name)), [0; 4]);
    }
}

#[test]
fn a_node_that_stops_is_gone_at_once_and_one_that_dies_within_the_lease() {
    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    let settings = [&QUICK[..], &SHORT].concat();
    let [mut a, mut b, mut c, d] = std::array::from_fn(|_| Node::start(&redis.url(), &settings));
    let _alice = join(&a, "alice", "room");
    let _bob = join(&b, "bob", "room");
    let _carol = join(&c, "carol", "room");
    let _dave = join(&d, "dave", "room");
    let mut watch = Watch::begin(&mut a, "room", "watch room topic:room");
    watch.wait_for(&mut a, &["@alice/room", "@bob/room", "@carol/room", "@dave/room"]);
    let began = Instant::now();
    b.ask("shutdown");
    watch.wait_for(&mut a, &["@alice/room", "@carol/room", "@dave/room"]);
    let stopped = began.elapsed();
    let began = Instant::now();
    c.kill();
    watch.wait_for(&mut a, &["@alice/room", "@dave/room"]);
    let died = began.elapsed();
    assert!(died > Duration::from_secs(1), "it was taken for dead after {died:?}");
    assert!(died < Duration::from_secs(8), "it was gone after {died:?}, with a lease of 4 s");
    assert!(stopped < Duration::from_secs(10), "a stop was told after {stopped:?}");
    // One that hangs for longer is gone too, and comes again with those who are there then.
    d.pause();
    watch.wait_for(&mut a, &["@alice/room"]);
    d.go_on();
    watch.wait_for(&mut a, &["@alice/room", "@dave/room"]);
    let told = watch.take().split_off(4);
    assert_eq!(told, ["-@bob/room", "-@carol/room", "-@dave/room", "+@dave/room"]);
}

#[test]
fn a_node_that_comes_later_is_seen_and_sees() {
    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    // Nobody waits for a turn.
    let settings = ["presence_lease=3600000"];
    let mut a = Node::start(&redis.url(), &settings);
    let _alice = join(&a, "alice", "room");
    let mut watch = Watch::begin(&mut a, "room", "watch room topic:room");
    watch.wait_for(&mut a, &["@alice/room"]);
    let mut b = Node::start(&redis.url(), &settings);
    let _bob = join(&b, "bob", "room");
    watch.wait_for(&mut a, &["@alice/room", "@bob/room"]);
    let mut other = Watch::begin(&mut b, "room", "watch room topic:room");
    other.wait_for(&mut b, &["@alice/room", "@bob/room"]);
    let carol = join(&b, "carol", "room");
    watch.wait_for(&mut a, &["@alice/room", "@bob/room", "@carol/room"]);
    drop(carol);
    watch.wait_for(&mut a, &["@alice/room", "@bob/room"]);
}

#[test]
fn redis_dies_and_comes_back_and_nobody_has_left_but_those_who_have() {
    if !is_installed() {
        return;
    }
    let mut redis = Redis::start();
    // It is away for longer than a lease.
    let settings = [&QUICK[..], &SHORT].concat();
    let [mut a, mut b] = std::array::from_fn(|_| Node::start(&redis.url(), &settings));
    let _alice = join(&a, "alice", "room");
    let _bob = join(&b, "bob", "room");
    let carol = join(&b, "carol", "room");
    let mut watch = Watch::begin(&mut a, "room", "watch room topic:room");
    watch.wait_for(&mut a, &["@alice/room", "@bob/room", "@carol/room"]);
    redis.kill();
    a.wait_until_connected(false);
    b.wait_until_connected(false);
    drop(carol);
    let dave = join(&b, "dave", "room");
    let _eve = join(&a, "eve", "room");
    // Who is here is told of meanwhile, and nobody else.
    watch.wait_for(&mut a, &["@alice/room", "@bob/room", "@carol/room", "@eve/room"]);
    thread::sleep(Duration::from_secs(5));
    watch.look(&mut a);
    assert_eq!(watch.take().split_off(3), ["+@eve/room"]);
    redis.start_again();
    a.wait_until_connected(true);
    b.wait_until_connected(true);
    watch.wait_for(&mut a, &["@alice/room", "@bob/room", "@dave/room", "@eve/room"]);
    let mut told = watch.take();
    told.sort();
    assert_eq!(told, ["+@dave/room", "-@carol/room"], "the difference alone is told");
    drop(dave);
    watch.wait_for(&mut a, &["@alice/room", "@bob/room", "@eve/room"]);
}

#[test]
fn what_the_network_swallows_is_told_later_and_the_difference_alone() {
    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    let proxy = Proxy::start(redis.address);
    let mut a = Node::start(&proxy.url(), &QUICK);
    let mut b = Node::start(&redis.url(), &QUICK);
    let clients: Vec<_> =
        (0..300).map(|number| join(&b, &format!("user{number}"), "room")).collect();
    let mut watch = Watch::begin(&mut a, "room", "watch room topic:room");
    let mut there: Vec<String> = (0..300).map(|number| format!("@user{number}/room")).collect();
    watch.wait_for(&mut a, &there.iter().map(String::as_str).collect::<Vec<_>>());
    watch.take();
    // The watching node hears nothing for a while, and knows nothing of that.
    let mut clients = clients.into_iter();
    for round in 0..3 {
        let reconnects = a.count("reconnects");
        proxy.cut();
        drop(clients.next());
        there.remove(0);
        a.wait_until("it is back", |a| a.count("reconnects") > reconnects);
        watch.wait_for(&mut a, &there.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(watch.take(), [format!("-@user{round}/room")]);
    }
    redis.ask("CLIENT KILL TYPE pubsub");
    drop(clients.next());
    there.remove(0);
    watch.wait_for(&mut a, &there.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(watch.take(), ["-@user3/room"]);
    b.wait_until_connected(true);
    // The program has sent nothing, and so nothing of its own is missing.
    assert!(a.count("missed") > 0, "nothing was swallowed");
    let gaps = a.ask("gaps");
    assert!(!gaps.contains("did not get here"), "{gaps}");
}

#[test]
fn a_list_that_is_longer_than_what_may_wait_for_redis_comes_in_parts_and_loses_nothing() {
    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    let settings = [&QUICK[..], &["max_message_size=1000", "max_waiting_bytes=2000"]].concat();
    let [mut a, mut b] = std::array::from_fn(|_| Node::start(&redis.url(), &settings));
    let mut clients: Vec<_> =
        (0..200).map(|number| join(&b, &format!("user{number}"), "room")).collect();
    let mut watch = Watch::begin(&mut a, "room", "watch room topic:room");
    let names: Vec<String> = (0..200).map(|number| format!("@user{number}/room")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    watch.wait_for(&mut a, &names);
    clients.truncate(100);
    watch.wait_for(&mut a, &names[..100]);
    // So do many watches, and those that are too long are told as lost.
    let watches: Vec<_> = (0..100).map(|number| format!("topic{number}")).collect();
    for name in &watches {
        a.ask(&format!("watch {name} topic:{name}"));
    }
    let _late = join(&b, "late", "topic99");
    a.wait_until("the last watch is known there", |a| a.ask("changes topic99") == "+@late/topic99");
    assert_eq!((a.count("lost"), b.count("lost"), a.count("missed")), (0, 0, 0));
    a.ask(&format!("watch_in long {}", "x".repeat(2000)));
    let why = "it is larger than `max_message_size`";
    a.wait_until("it cannot cross, and says so", |a| a.count("lost") > 0 && a.log().contains(why));
    let _later = join(&b, "later", "topic98");
    a.wait_until("the others go on", |a| a.ask("changes topic98") == "+@later/topic98");
}

#[test]
fn what_other_nodes_watch_takes_memory_up_to_a_limit_and_is_told_again_when_there_is_room() {
    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    let [mut a, mut b] = nodes(&redis.url());
    let mut first = Watch::begin(&mut b, "first", "watch first topic:room");
    let _alice = join(&a, "alice", "room");
    first.wait_for(&mut b, &["@alice/room"]);
    // 18 MB of prefixes, of which a node takes 16 MiB.
    let prefix = "x".repeat(60_000);
    for number in 0..300 {
        assert_eq!(b.ask(&format!("watch_in {number} {number}{prefix}")), "");
    }
    a.wait_until("it has enough", |a| a.log().contains("other nodes watch more than this one"));
    let _bob = join(&a, "bob", "room");
    first.wait_for(&mut b, &["@alice/room", "@bob/room"]);
    for number in 0..300 {
        b.ask(&format!("unwatch {number}"));
    }
    let mut last = Watch::begin(&mut b, "last", "watch last topic:hall");
    let _carol = join(&a, "carol", "hall");
    last.wait_for(&mut b, &["@carol/hall"]);
}

#[test]
fn comings_and_goings_at_random_on_three_nodes_end_with_those_who_are_there() {
    if !is_installed() {
        return;
    }
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let redis = Redis::start();
    let settings = [&QUICK[..], &["presence_lease=10000"]].concat();
    let proxy = Proxy::start(redis.address);
    let mut nodes = [proxy.url(), redis.url(), redis.url()].map(|url| Node::start(&url, &settings));
    let mut watches = Vec::new();
    for node in &mut nodes {
        watches.push(Watch::begin(node, "rooms", "watch_in rooms room:"));
    }
    let mut clients: Vec<(Raw, String)> = Vec::new();
    for step in 0..400 {
        match random.below(10) {
            0..5 => {
                let topic = format!("room:{}", random.below(3));
                let user = format!("user{}", random.below(6));
                let client = join(&nodes[random.below(3)], &user, &topic);
                clients.push((client, format!("@{user}/{topic}")));
            }
            5..9 if !clients.is_empty() => {
                drop(clients.swap_remove(random.below(clients.len())));
            }
            _ if step % 4 == 0 => proxy.cut(),
            _ => {
                // Watches come and go too.
                let at = random.below(3);
                nodes[at].ask("unwatch rooms");
                watches[at] = Watch::begin(&mut nodes[at], "rooms", "watch_in rooms room:");
            }
        }
        let at = random.below(3);
        watches[at].look(&mut nodes[at]);
    }
    let there: BTreeSet<_> = clients.iter().map(|(_, who)| who.as_str()).collect();
    let there: Vec<_> = there.into_iter().collect();
    for (node, watch) in nodes.iter_mut().zip(&mut watches) {
        watch.wait_for(node, &there);
    }
    drop(clients);
    for (node, watch) in nodes.iter_mut().zip(&mut watches) {
        watch.wait_for(node, &[]);
    }
}

#[test]
fn a_watch_that_began_before_the_server_sees_the_cluster_while_it_runs() {
    use rwf::http::Server;
    use rwf::prelude::*;

    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    let other = Node::start(&redis.url(), &QUICK);
    let _alice = join(&other, "alice", "early");
    let watch = Comms::topic("early").presence().unwrap();
    let server = Server::new(vec![]).bind("127.0.0.1:0").cluster(Cluster::redis(redis.url()));
    let server = server.spawn().unwrap();
    let change = watch.recv_timeout(DEADLINE).expect("alice is there");
    assert!(change.has_joined() && change.session_id() == &SessionId::from("alice"), "{change:?}");
    server.shutdown().unwrap();
    let change = watch.recv_timeout(DEADLINE).expect("nobody is there that this process could see");
    assert!(!change.has_joined(), "{change:?}");
}
