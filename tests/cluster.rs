//! Several nodes over one Redis: whom a message reaches, in what order, and what a node says when it cannot.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "cluster/over.rs"]
mod over;
#[path = "cluster/process.rs"]
mod process;
#[path = "cluster/redis.rs"]
mod redis;

mod common;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use common::{DEADLINE, Raw};
use over::{Over, Reached};
use process::{Node, join};
use redis::{Proxy, Redis, is_installed};
use rwf::http::Server;
use rwf::prelude::*;

/// Failures are found, and waited out, in a time that a test has.
const QUICK: [&str; 5] = [
    "probe_interval=200",
    "probe_timeout=1500",
    "connect_timeout=1000",
    "subscribe_timeout=300",
    "max_reconnect_delay=200",
];

fn nodes<const N: usize>(url: &str) -> [Node; N] {
    std::array::from_fn(|_| Node::start(url, &QUICK))
}

/// What holds over TCP and over TLS.
macro_rules! over_both {
    ($($name:ident)*) => {
        over_both!(over_tcp: Over::Tcp, $($name)*);
        over_both!(over_tls: Over::Tls, $($name)*);
    };
    ($module:ident: $over:expr, $($name:ident)*) => {
        mod $module {
            use super::*;

            $(#[test]
            fn $name() {
                if is_installed() {
                    super::$name($over);
                }
            })*
        }
    };
}

over_both! {
    every_kind_of_receiver_is_reached_on_every_node_once_and_nobody_else
    what_each_node_sends_to_a_connection_arrives_in_order_and_once
    redis_is_killed_and_comes_back_and_what_waited_is_sent
    a_redis_that_says_nothing_is_found_and_local_traffic_goes_on
    connections_that_redis_or_the_network_ends_come_back
    what_is_said_last_before_a_shutdown_goes_out
}

fn every_kind_of_receiver_is_reached_on_every_node_once_and_nobody_else(over: Over) {
    let redis = Reached::start(over);
    let [mut a, mut b, c] = redis.nodes(&QUICK);
    // Alice has two tabs on two nodes.
    let (mut alice_a, _) = a.connect("alice");
    let (mut alice_b, alice_id) = b.connect("alice");
    let (mut bob_b, bob_id) = b.connect("bob");
    let mut carol_c = join(&c, "carol", "room");
    let mut dave_b = join(&b, "dave", "room");

    assert_eq!(a.ask("send session:alice both tabs"), "1 Handed");
    assert_eq!([alice_a.text_frame(), alice_b.text_frame()], ["both tabs", "both tabs"]);
    assert_eq!(a.ask("send session:bob the other node"), "0 Handed");
    assert_eq!(bob_b.text_frame(), "the other node");
    assert_eq!(a.ask(&format!("send connection:{alice_id} one tab")), "0 Handed");
    assert_eq!(alice_b.text_frame(), "one tab");
    assert_eq!(b.ask(&format!("send connection:{alice_id} here")), "1 NotMeant");
    assert_eq!(alice_b.text_frame(), "here");
    assert_eq!(a.ask("send topic:room in the room"), "0 Handed");
    assert_eq!([carol_c.text_frame(), dave_b.text_frame()], ["in the room", "in the room"]);
    assert_eq!(a.ask("send but:alice not alice"), "0 Handed");
    for client in [&mut bob_b, &mut carol_c, &mut dave_b] {
        assert_eq!(client.text_frame(), "not alice");
    }
    assert_eq!(b.ask("send all everybody"), "3 Handed");
    for client in [&mut alice_a, &mut alice_b, &mut bob_b, &mut carol_c, &mut dave_b] {
        assert_eq!(client.text_frame(), "everybody", "exactly once, and nothing before");
    }
    assert_eq!(a.ask("latest session:bob price 7"), "0");
    assert_eq!(bob_b.text_frame(), "7");

    // A handler that tells its session reaches the tabs that are elsewhere.
    alice_a.send_text("tell from my tab");
    assert_eq!([alice_a.text_frame(), alice_b.text_frame()], ["from my tab", "from my tab"]);

    assert_eq!(a.ask("subscribe session:bob room"), "0");
    b.wait_until("bob is in the room", |b| b.ask("send topic:room hello bob").starts_with("2 "));
    while bob_b.text_frame() != "hello bob" {}
    assert_eq!(a.ask("unsubscribe session:bob room"), "0");
    b.wait_until("bob has left the room", |b| b.ask("send topic:room bye").starts_with("1 "));
    assert_eq!(a.ask("close session:bob 4001 go away"), "0");
    let (code, reason) = loop {
        let frame = bob_b.frame();
        if frame.first == 0x88 {
            break (
                frame.payload[..2].to_vec(),
                String::from_utf8(frame.payload[2..].to_vec()).unwrap(),
            );
        }
    };
    assert_eq!((code, reason.as_str()), (4001_u16.to_be_bytes().to_vec(), "go away"));
    // A connection that is gone is no error anywhere.
    assert_eq!(a.ask(&format!("send connection:{bob_id} nobody")), "0 Handed");
    for mut node in [a, b, c] {
        assert_eq!(["lost", "missed", "repeated", "unknown"].map(|name| node.count(name)), [0; 4]);
        assert_eq!(node.ask("gaps"), "");
    }
}

#[test]
fn a_node_hears_what_is_there_and_nothing_else() {
    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    let [mut a, b] = nodes(&redis.url());
    let heard = |channel: &str| redis.subscribers(channel);
    assert_eq!((heard("rwf:all"), heard("rwf:session:@alice"), heard("rwf:topic:room")), (2, 0, 0));
    let first = join(&a, "alice", "room");
    let second = join(&a, "alice", "room");
    let third = join(&b, "alice", "hall");
    assert_eq!(
        (heard("rwf:session:@alice"), heard("rwf:topic:room"), heard("rwf:topic:hall")),
        (2, 1, 1)
    );
    assert_eq!(a.count("subscriptions"), 6, "four of the node, a session, a topic");
    drop(first);
    let (bob, id) = a.connect("bob");
    assert_eq!(heard("rwf:session:@alice"), 2, "one of its tabs is there still");
    drop((second, bob, third));
    a.wait_until("the node hears its own channels alone", |a| a.count("subscriptions") == 4);
    let is_left = || {
        (heard("rwf:session:@alice"), heard("rwf:session:@bob"), heard("rwf:topic:room"))
            == (0, 0, 0)
    };
    a.wait_until("Redis knows", |_| is_left());
    // To one's own tab crosses nothing.
    let published = a.count("published");
    assert_eq!(a.ask(&format!("send connection:{id} gone")), "0 NotMeant");
    assert_eq!(a.count("published"), published);
}

#[test]
fn who_is_there_is_asked_of_all_nodes_and_of_those_alone_who_may_know() {
    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    // Nobody is late but one who cannot answer.
    let [mut a, mut b, mut c] =
        std::array::from_fn(|_| Node::start(&redis.url(), &["ask_timeout=2000"]));
    let (_alice_a, _) = a.connect("alice");
    let (_alice_b, alice_id) = b.connect("alice");
    let _bob_b = join(&b, "bob", "room");
    let _carol_c = join(&c, "carol", "room");
    for (who, expected) in [
        ("all", "(4, 3) @alice @bob @carol"),
        ("session:alice", "(2, 1) @alice"),
        ("topic:room", "(2, 2) @bob @carol"),
        ("but:alice", "(2, 2) @bob @carol"),
        ("session:nobody", "(0, 0) "),
        (&format!("connection:{alice_id}"), "(1, 1) @alice"),
    ] {
        for node in [&mut a, &mut b, &mut c] {
            assert_eq!(node.ask(&format!("members {who}")), expected, "{who}");
            let is_there = !expected.starts_with("(0");
            assert_eq!(node.ask(&format!("is_connected {who}")), is_there.to_string(), "{who}");
        }
    }
    for (question, expected) in [
        ("contains topic:room bob", "true"),
        ("contains topic:room alice", "false"),
        (&format!("contains all connection:{alice_id}"), "true"),
        (&format!("contains topic:room connection:{alice_id}"), "false"),
    ] {
        assert_eq!(a.ask(question), expected, "{question}");
    }
    for node in [&mut a, &mut b, &mut c] {
        assert_eq!(node.count("unanswered"), 0, "it waited for somebody");
    }
    // One who hangs is left out after a while, and one who is dead has gone at once.
    c.pause();
    let began = Instant::now();
    assert_eq!(a.ask("members topic:room"), "(1, 1) @bob");
    assert!(began.elapsed() < DEADLINE, "it took {:?}", began.elapsed());
    assert_eq!(a.count("unanswered"), 3);
    assert_eq!(a.ask("is_connected topic:room"), "true", "one who says so is enough");
    c.go_on();
    c.kill();
    a.wait_until("Redis knows", |a| a.ask("members topic:room") == "(1, 1) @bob");
    let unanswered = a.count("unanswered");
    let began = Instant::now();
    assert_eq!(a.ask("is_connected session:carol"), "false");
    assert_eq!(a.count("unanswered"), unanswered);
    assert!(began.elapsed() < Duration::from_secs(3), "it waited for a dead node");
}

#[test]
fn what_is_sent_after_the_101_arrives_from_every_node() {
    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    // Nothing fails here but for want of a processor, which is given time.
    let [a, mut b, mut c] =
        std::array::from_fn(|_| Node::start(&redis.url(), &["subscribe_timeout=10000"]));
    for number in 0..1000 {
        let mut client = Raw::open(a.address, &format!("/user{number}"));
        // It has seen its 101 alone.
        let sender = if number % 2 == 0 { &mut b } else { &mut c };
        sender.ask(&format!("send session:user{number} racing"));
        let frames = [client.text_frame(), client.text_frame()];
        assert!(frames.iter().any(|frame| frame == "racing"), "{number}: {frames:?}");
    }
}

fn what_each_node_sends_to_a_connection_arrives_in_order_and_once(over: Over) {
    const COUNT: usize = 10_000;
    let redis = Reached::start(over);
    // Nothing fails here but for want of a processor, which is given time.
    let nodes: [Node; 3] = redis.nodes(&[]);
    let (mut client, id) = nodes[0].connect("reader");
    let mut topic = join(&nodes[1], "follower", "numbers");
    // A thread of each node sends by turns to the session, the connection, the topic and everybody.
    let senders: Vec<_> = nodes
        .into_iter()
        .enumerate()
        .map(|(name, mut node)| {
            let ways = ["session:reader".to_owned(), format!("connection:{id}"), "all".to_owned()];
            thread::spawn(move || {
                for part in 0..10 {
                    let way = &ways[part % 3];
                    node.ask(&format!("burst {way} {} node{name} {part}", COUNT / 10));
                    node.ask(&format!("burst topic:numbers 10 topic{name} {part}"));
                }
                node
            })
        })
        .collect();
    let mut last = HashMap::new();
    for _ in 0..3 * COUNT {
        let text = client.text_frame();
        let mut words = text.split(' ');
        let (node, part, number): (_, usize, usize) = (
            words.next().unwrap().to_owned(),
            words.next().unwrap().parse().unwrap(),
            words.next().unwrap().parse().unwrap(),
        );
        let place = part * (COUNT / 10) + number;
        let before = last.insert(node.clone(), place).map_or(0, |before| before + 1);
        assert_eq!(place, before, "{node}");
    }
    let mut seen = 0;
    while seen < 300 {
        seen += usize::from(topic.text_frame().starts_with("topic"));
    }
    let nodes: Vec<_> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
    client.expect_nothing_for(Duration::from_millis(50));
    for mut node in nodes {
        assert_eq!((node.count("missed"), node.count("lost"), node.count("repeated")), (0, 0, 0));
    }
}

/// Of 100 of these, how long 99 took at most.
fn p99(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// How long an echo of a client takes.
fn echo(client: &mut Raw) -> Duration {
    let began = Instant::now();
    client.send_text("echo");
    assert_eq!(client.text_frame(), "echo");
    began.elapsed()
}

fn redis_is_killed_and_comes_back_and_what_waited_is_sent(over: Over) {
    let mut redis = Reached::start(over);
    let [mut a, mut b] = redis.nodes(&QUICK);
    let (mut alice, _) = a.connect("alice");
    let mut bob = join(&b, "bob", "room");
    // Of nodes that were never heard nobody knows what is missing.
    for whom in ["session:bob", "topic:room"] {
        a.ask(&format!("send {whom} begin"));
        assert_eq!(bob.text_frame(), "begin");
    }
    redis.kill();
    a.wait_until_connected(false);
    b.wait_until_connected(false);
    // Who is here is served, and nobody waits.
    assert_eq!(a.ask("send session:alice local"), "1 Waiting");
    assert_eq!(alice.text_frame(), "local");
    for _ in 0..100 {
        echo(&mut alice);
    }
    let began = Instant::now();
    let (mut carol, _) = a.connect("carol");
    assert!(
        began.elapsed() < Duration::from_millis(300),
        "a 101 waited for Redis, known to be away"
    );
    assert_eq!(a.ask("send session:bob waits"), "0 Waiting");
    assert_eq!(a.ask("send topic:room waits too"), "0 Waiting");
    redis.start_again();
    a.wait_until_connected(true);
    b.wait_until_connected(true);
    // What one node had to say may come before the other hears again: then it is missed, and told.
    assert_eq!(a.ask("send session:bob again"), "0 Handed");
    assert_eq!(b.ask("send session:carol came while it was away"), "0 Handed");
    assert_eq!(carol.text_frame(), "came while it was away");
    let mut came = Vec::new();
    while came.last().is_none_or(|text| text != "again") {
        came.push(bob.text_frame());
    }
    assert!(is_subsequence(&came, &["waits", "waits too", "again"]), "{came:?}");
    a.ask("send topic:room again");
    assert_eq!(bob.text_frame(), "again");
    let missed = 4 - came.len() as u64 - 1;
    assert_eq!(b.count("missed"), missed, "{came:?}; {}", b.ask("gaps"));
    for node in [&mut a, &mut b] {
        assert_eq!(node.count("lost"), 0);
        // It is told on a thread of its own.
        node.wait_until("it is told", |node| {
            let gaps = node.ask("gaps");
            gaps.contains("on its own") && gaps.contains("is back")
        });
        let log = node.log();
        let address = redis.url().split('/').nth(2).unwrap().to_owned();
        assert!(log.contains(&format!("this node is on its own redis={address}: ")), "{log}");
        assert!(log.contains("this node is back in the cluster"), "{log}");
        assert_eq!(node.count("reconnects"), 1);
    }
}

fn is_subsequence(some: &[String], all: &[&str]) -> bool {
    let mut all = all.iter();
    some.iter().all(|one| all.any(|other| other == one))
}

#[test]
fn what_redis_does_not_take_in_time_is_counted_and_told_as_lost() {
    if !is_installed() {
        return;
    }
    let mut redis = Redis::start();
    let settings = [&QUICK[..], &["max_waiting_bytes=100000", "max_waiting_age=700"]].concat();
    let mut a = Node::start(&redis.url(), &settings);
    let mut b = Node::start(&redis.url(), &settings);
    let (mut bob, _) = b.connect("bob");
    assert_eq!(a.ask("send session:bob 1"), "0 Handed");
    assert_eq!(bob.text_frame(), "1");
    redis.kill();
    a.wait_until_connected(false);
    b.wait_until_connected(false);
    a.ask("burst session:bob 1000 full");
    let lost = a.count("lost");
    assert!((500..1000).contains(&lost), "{lost} of 1000 did not fit");
    assert!(a.count("waiting_bytes") <= 100_000);
    assert_eq!(a.ask("send session:bob more"), "0 Lost");
    a.wait_until("what waits too long is lost", |a| a.count("lost") == 1001);
    assert_eq!(a.count("waiting_messages"), 0);
    redis.start_again();
    a.wait_until_connected(true);
    b.wait_until_connected(true);
    assert_eq!(a.ask("send session:bob 2"), "0 Handed");
    assert_eq!(bob.text_frame(), "2");
    assert_eq!(b.count("missed"), 1001, "the other node sees by the numbers what did not come");
    // The hook has a thread of its own.
    b.wait_until("it is told", |b| b.ask("gaps").contains("1001 messages of the node"));
    a.wait_until("it is told", |a| a.ask("gaps").contains("messages did not get to other nodes"));
    a.wait_until("its log tells", |a| {
        a.log().contains("messages did not get to other nodes redis=")
    });
    b.wait_until("its log tells", |b| {
        b.log().contains("messages of another node did not get here node=")
    });
}

#[test]
fn a_message_that_is_too_large_for_redis_stays_here_and_ends_no_connection() {
    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    let limit = "client-output-buffer-limit pubsub 100kb 0 0";
    assert_eq!(redis.ask(&format!("CONFIG SET {}", limit.replacen(' ', " \"", 1) + "\"")), "+OK");
    let settings = [&QUICK[..], &["max_message_size=50000"]].concat();
    let [mut a, mut b] = [0, 1].map(|_| Node::start(&redis.url(), &settings));
    let (mut alice, _) = a.connect("alice");
    let (mut bob, _) = b.connect("bob");
    let large = "x".repeat(200_000);
    assert_eq!(a.ask(&format!("send all {large}")), "1 Lost");
    assert_eq!(alice.text_frame(), large);
    let fits = "x".repeat(40_000);
    assert_eq!(a.ask(&format!("send all {fits}")), "1 Handed");
    assert_eq!([alice.text_frame(), bob.text_frame()], [fits.clone(), fits]);
    assert!(a.log().contains("lost=1: it is larger than `max_message_size`"), "{}", a.log());
    assert_eq!((a.count("lost"), b.count("missed")), (1, 0), "nothing was heard before it");
    assert_eq!((a.count("reconnects"), b.count("reconnects")), (0, 0));
}

fn a_redis_that_says_nothing_is_found_and_local_traffic_goes_on(over: Over) {
    let redis = Reached::start(over);
    let [mut a, mut b] = redis.nodes(&QUICK);
    let (mut alice, _) = a.connect("alice");
    let (mut bob, _) = b.connect("bob");
    // Of nodes that were never heard nobody knows what is missing.
    a.ask("send session:bob begin");
    assert_eq!(bob.text_frame(), "begin");
    // What else the machine does concerns the times before and during the silence alike.
    let mut honest = |a: &mut Node, text: &str| {
        a.ask(&format!("send session:bob {text}"));
        echo(&mut alice)
    };
    let mut before: Vec<_> = (0..500).map(|_| honest(&mut a, "before")).collect();
    for _ in 0..500 {
        assert_eq!(bob.text_frame(), "before");
    }
    redis.pause();
    let (began, mut during) = (Instant::now(), Vec::new());
    while a.status("is_connected") == "true" {
        during.push(honest(&mut a, "into silence"));
        assert!(began.elapsed() < DEADLINE, "nobody finds that Redis says nothing");
    }
    let (before, during) = (p99(&mut before), p99(&mut during));
    assert!(
        during < 10 * before + Duration::from_millis(250),
        "99 of 100 echoes took up to {before:?} while Redis answered, and then up to {during:?}"
    );
    // It does not answer new connections either, and clients get in nevertheless.
    let began = Instant::now();
    for number in 0..5 {
        a.connect(&format!("late{number}"));
    }
    assert!(began.elapsed() < Duration::from_secs(2), "101s waited {:?}", began.elapsed());
    let reason = a.ask("status");
    assert!(
        reason.contains("nothing for 1.5s") || reason.contains("not answer in time"),
        "{reason}"
    );
    redis.go_on();
    a.wait_until_connected(true);
    b.wait_until_connected(true);
    a.ask("send session:bob end");
    let mut texts = 0;
    while bob.text_frame() != "end" {
        texts += 1;
    }
    let missed = b.count("missed");
    a.wait_until(&format!("each is here or missed: {texts} + {missed}"), |a| {
        // It has said that it has come, and the first and the last message.
        texts + missed + 503 == a.count("published") + a.count("lost")
    });
}

fn connections_that_redis_or_the_network_ends_come_back(over: Over) {
    let redis = Reached::start(over);
    let proxy = Proxy::start(redis.address());
    let mut a = redis.node_at(&redis.url_through(&proxy), &QUICK);
    let mut b = redis.node(&QUICK);
    let mut alice = join(&a, "alice", "room");
    proxy.delay(Duration::from_millis(30));
    assert_eq!(b.ask("send topic:room slow"), "0 Handed");
    assert_eq!(alice.text_frame(), "slow");
    proxy.delay(Duration::ZERO);
    let ends: [&dyn Fn(); 3] =
        [&|| drop(redis.ask("CLIENT KILL TYPE pubsub")), &|| drop(redis.ask("FLUSHALL")), &|| {
            proxy.cut()
        }];
    for (number, end) in ends.iter().enumerate() {
        let reconnects = a.count("reconnects");
        end();
        if number != 1 {
            a.wait_until("it has come back", |a| a.count("reconnects") > reconnects);
        }
        for node in [&mut a, &mut b] {
            node.wait_until_connected(true);
        }
        assert_eq!(b.ask(&format!("send topic:room {number}")), "0 Handed");
        assert_eq!(alice.text_frame(), number.to_string());
        assert_eq!(a.ask(&format!("send topic:room {number}")), "1 Handed");
        assert_eq!(alice.text_frame(), number.to_string());
    }
    assert_eq!(["missed", "lost"].map(|name| a.count(name)), [0, 0]);
}

#[test]
fn a_redis_that_hangs_in_the_middle_of_long_messages_is_found_in_time() {
    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    let timeout = Duration::from_secs(3);
    let settings = ["probe_interval=200", "probe_timeout=3000", "max_reconnect_delay=200"];
    let [mut a, b] = [0, 1].map(|_| Node::start(&redis.url(), &settings));
    let _bob = b.connect("bob");
    a.wait_until_connected(true);
    redis.pause();
    let began = Instant::now();
    let long = "x".repeat(300_000);
    for _ in 0..60 {
        a.ask(&format!("send session:bob {long}"));
    }
    a.wait_until_connected(false);
    let took = began.elapsed();
    redis.go_on();
    assert!(took < timeout + Duration::from_secs(2), "found after {took:?}");
}

#[test]
fn a_node_that_redis_throws_out_for_being_slow_says_what_it_missed() {
    if !is_installed() {
        return;
    }
    let limit = ["--client-output-buffer-limit", "pubsub 300kb 0 0"];
    let redis = Redis::start_with(&limit);
    let [mut a, mut b] = nodes(&redis.url());
    let mut bob = join(&b, "bob", "room");
    b.pause();
    // More than the network holds for it.
    let text = "x".repeat(10_000);
    let text = format!("burst topic:room 3000 {text}");
    a.ask(&text);
    a.wait_until("Redis has taken all", |a| a.count("waiting_messages") == 0);
    b.go_on();
    b.wait_until("it was thrown out and has come back", |b| b.count("reconnects") == 1);
    b.wait_until_connected(true);
    a.wait_until_connected(true);
    a.ask("send topic:room end");
    let mut texts = 0;
    while bob.text_frame() != "end" {
        texts += 1;
    }
    let missed = b.count("missed");
    a.wait_until("each is here or missed", |a| {
        // It has said that it has come, and the last message.
        texts + missed + 2 == a.count("published") + a.count("lost")
    });
    assert!(b.count("missed") > 0);
}

#[test]
fn a_node_that_dies_or_hangs_holds_up_nobody() {
    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    let [mut a, mut b, mut c] = nodes(&redis.url());
    let mut alice = join(&a, "alice", "room");
    let mut carol = join(&c, "carol", "room");
    b.kill();
    assert_eq!(c.ask("send topic:room one is dead"), "1 Handed");
    assert_eq!([alice.text_frame(), carol.text_frame()], ["one is dead", "one is dead"]);
    c.pause();
    for _ in 0..100 {
        assert_eq!(a.ask("send topic:room one hangs"), "1 Handed");
        assert_eq!(alice.text_frame(), "one hangs");
    }
    c.go_on();
    assert_eq!(carol.text_frame(), "one hangs");
    assert_eq!(a.status("is_connected"), "true");
}

fn what_is_said_last_before_a_shutdown_goes_out(over: Over) {
    let redis = Reached::start(over);
    let [mut a, b] = redis.nodes(&QUICK);
    let (mut bob, _) = b.connect("bob");
    a.ask("burst session:bob 500 last");
    assert!(a.ask("shutdown").contains("cut: 0"));
    for number in 0..500 {
        assert_eq!(bob.text_frame(), format!("last {number}"));
    }
    assert!(a.ask("status").contains("node: None"), "it has left");
    a.wait_until("it says so", |a| a.log().contains("this node has left the cluster"));
}

#[test]
fn a_start_that_fails_says_why_and_shows_no_credentials() {
    if !is_installed() {
        return;
    }
    let folder = common::Folder::new();
    let open = Redis::start();
    let closed = Redis::start_with(&["--requirepass", "s3cret"]);
    closed.ask("PING");
    let replica = {
        let port = open.address.port().to_string();
        Redis::start_with(&["--replicaof", "127.0.0.1", &port])
    };
    let cluster =
        Redis::start_with(&["--cluster-enabled", "yes", "--dir", folder.0.to_str().unwrap()]);
    for user in [
        "ACL SETUSER weak on >s3cret +hello +client allchannels",
        "ACL SETUSER narrow on >s3cret +@all &other:*",
    ] {
        assert_eq!(open.ask(user), "+OK");
    }
    let (open, closed) = (open.address, closed.address);
    for (url, expected) in [
        (format!("redis://{}", redis::free_address()), "cannot be reached: "),
        (format!("redis://{closed}"), "it wants a password, and the address has none"),
        (format!("redis://:wr0ng-s3cret@{closed}"), "user or password are wrong"),
        (format!("redis://weak:s3cret@{open}"), "the user may not do it: it needs HELLO"),
        (format!("redis://narrow:s3cret@{open}"), "the user may not do it: it needs HELLO"),
        (format!("redis://{open}/99"), "SELECT: ERR DB index is out of range"),
        (replica.url(), "it is a read-only replica"),
        (cluster.url(), "it is a Redis Cluster"),
        (format!("redis://s3cret@{open}"), "has a user without a password"),
        (format!("unix:///no/such/s{open}"), "cannot be reached: "),
    ] {
        let error = Node::try_start(&url, &QUICK).err().unwrap_or_else(|| panic!("{url} works"));
        assert!(error.contains(expected), "{url}: {error}");
        assert!(!error.contains("s3cret"), "{url}: {error}");
    }
    // What is right works.
    Node::start(&format!("redis://:s3cret@{closed}/3"), &QUICK);
}

#[test]
fn tls_that_cannot_be_is_an_error_at_start_that_says_what_to_do() {
    if !is_installed() {
        return;
    }
    let [right, elsewhere, strict] = [
        (&["localhost", "127.0.0.1"][..], false),
        (&["redis.example"], false),
        (&["localhost"], true),
    ]
    .map(|(hosts, wants_certificates)| Reached::secure(hosts, wants_certificates));
    let roots = |redis: &Reached| format!("root_certificates={}", redis.file("cert.pem").unwrap());
    let (secure, plain) = (right.address(), right.address);
    let key = format!("root_certificates={}", right.file("key.pem").unwrap());
    for (url, setting, expected) in [
        (right.url(), String::new(), "of no authority that is known here"),
        (right.url(), roots(&strict), "to `Cluster::root_certificates`"),
        (
            elsewhere.url(),
            roots(&elsewhere),
            "is not for localhost, the host of the address, but for",
        ),
        (elsewhere.url(), roots(&elsewhere), "redis.example"),
        (format!("rediss://127.0.0.2:{}", secure.port()), roots(&right), "cannot be reached"),
        (
            format!("rediss://[::ffff:127.0.0.1]:{}", secure.port()),
            roots(&right),
            "the host of the address",
        ),
        (format!("rediss://{plain}"), roots(&right), "write redis:// for a Redis without"),
        (format!("redis://{secure}"), String::new(), "if it speaks TLS, write rediss://"),
        (strict.url(), roots(&strict), "a certificate of this node"),
        (
            right.url(),
            "root_certificates=/no/such.pem".to_owned(),
            "cannot use /no/such.pem: No such",
        ),
        (right.url(), key, "no certificate is in it"),
        (format!("redis://{plain}"), roots(&right), "`root_certificates` is for an address that"),
    ] {
        let settings: Vec<_> = QUICK.into_iter().chain([&*setting]).collect();
        let settings = settings.strip_suffix(&[""]).unwrap_or(&settings);
        let error = Node::try_start(&url, settings).err();
        let error = error.unwrap_or_else(|| panic!("{url} {setting} works"));
        assert!(error.contains(expected), "{url} {setting}: {error}");
    }
    // What is right works, by an address too, and with a certificate of the node.
    let by_address = format!("rediss://{secure}");
    assert_eq!(Node::start(&by_address, &[&roots(&right)]).status("is_connected"), "true");
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| strict.file(name).unwrap());
    let own = format!("tls_config={certificate},{key}");
    assert_eq!(Node::start(&strict.url(), &[&own]).status("is_connected"), "true");
}

#[test]
fn what_nests_without_end_ends_a_start_or_a_connection_and_not_the_process() {
    let nested = b"*1\r\n".repeat(500_000);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}/", listener.local_addr().unwrap());
    let bytes = nested.clone();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 100]).unwrap();
        // The node ends the connection before it has all.
        let _ = stream.write_all(&bytes);
    });
    let error = Node::try_start(&url, &QUICK).expect_err("it is no Redis");
    assert!(error.contains("it does not speak Redis' protocol"), "{error}");

    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    let proxy = Proxy::start(redis.address);
    let mut a = Node::start(&proxy.url(), &QUICK);
    let (mut alice, _) = a.connect("alice");
    proxy.say(&nested);
    a.wait_until("it has found another connection", |a| a.count("reconnects") == 1);
    assert!(a.log().contains("it does not speak Redis' protocol"), "{}", a.log());
    a.wait_until_connected(true);
    echo(&mut alice);
}

#[test]
fn nodes_meet_over_a_unix_socket_with_a_user_that_may_do_little_and_apart_by_prefix_and_database() {
    if !is_installed() {
        return;
    }
    let folder = common::Folder::new();
    let path = folder.0.join("redis.sock");
    let redis = Redis::start_with(&["--unixsocket", path.to_str().unwrap()]);
    let user = "ACL SETUSER chat on >p@ss resetchannels &rwf:* &other:* -@all +hello +select +publish +subscribe +unsubscribe";
    assert_eq!(redis.ask(user), "+OK");
    let unix = format!("unix://chat:p%40ss@{}", path.display());
    let tcp = format!("redis://chat:p%40ss@{}", redis.address);
    let mut a = Node::start(&unix, &QUICK);
    let b = Node::start(&tcp, &QUICK);
    let others = [Node::start(&tcp, &["prefix=other"]), Node::start(&format!("{tcp}/1"), &QUICK)];
    let (mut bob, _) = b.connect("bob");
    let mut strangers: Vec<_> = others.iter().map(|node| node.connect("bob").0).collect();
    assert_eq!(a.ask("send all hello"), "0 Handed");
    assert_eq!(bob.text_frame(), "hello");
    thread::sleep(Duration::from_millis(50));
    for stranger in &mut strangers {
        assert!(echo(stranger) < DEADLINE, "it has got nothing of another cluster");
    }
    let shown = [a.log(), a.ask("status")].concat();
    assert!(!shown.contains("p@ss") && !shown.contains("p%40ss"), "{shown}");
}

#[test]
fn a_password_that_becomes_wrong_is_told_now_and_then_and_tried_without_a_spin() {
    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    assert_eq!(redis.ask("ACL SETUSER chat on >before allchannels +@all"), "+OK");
    let mut a = Node::start(&format!("redis://chat:before@{}", redis.address), &QUICK);
    let (mut alice, _) = a.connect("alice");
    assert_eq!(redis.ask("ACL SETUSER chat resetpass >after"), "+OK");
    redis.ask("CLIENT KILL TYPE pubsub");
    a.wait_until("it says why", |a| a.log().contains("user or password are wrong"));
    let before = redis.ask("INFO stats").len();
    thread::sleep(Duration::from_secs(1));
    let lines = a.log().matches("user or password are wrong").count();
    assert_eq!(lines, 1, "once is enough: {} {before}", a.log());
    echo(&mut alice);
    assert_eq!(redis.ask("ACL SETUSER chat resetpass >before"), "+OK");
    a.wait_until_connected(true);
    assert!(a.count("reconnects") == 1);
}

#[test]
fn every_setting_works_at_its_extremes_or_is_an_error_that_names_it() {
    if !is_installed() {
        return;
    }
    let source = include_str!("../src/redis/settings.rs");
    let (_, fields) = source.split_once("struct Settings {").unwrap();
    let (fields, _) = fields.split_once("\n}").unwrap();
    let names = fields.lines().filter_map(|line| line.trim().strip_prefix("pub(crate) "));
    let names: Vec<_> = names.filter_map(|line| Some(line.split_once(':')?.0)).collect();
    assert!(names.len() >= 8, "{names:?}");
    let redis = Redis::start();
    for name in names {
        let mut works = 0;
        for value in ["0", "1", "max"] {
            let setting = format!("{name}={value}");
            let mut node = match Node::try_start(&redis.url(), &[&setting]) {
                Ok(node) => node,
                // A millisecond may be too short for Redis, and that is said too.
                Err(error) if value == "1" && error.contains("in time") => continue,
                Err(error) => {
                    assert!(error.contains(&format!("`{name}` has to be")), "{setting}: {error}");
                    continue;
                }
            };
            let (mut client, _) = node.connect("alice");
            echo(&mut client);
            node.ask("send session:alice hello");
            assert_eq!(client.text_frame(), "hello", "{setting}");
            assert_eq!(node.ask("is_connected session:nobody"), "false", "{setting}");
            drop(client);
            assert!(node.ask("shutdown").contains("cut: 0"), "{setting}");
            works += 1;
        }
        assert!(works >= 1, "{name} works with none of three values");
    }
}

#[test]
fn servers_of_a_process_share_a_cluster_and_a_second_one_is_refused() {
    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    let url = format!("redis://user:s3cret@{}", redis.address);
    assert!(redis.ask("ACL SETUSER user on >s3cret allchannels +@all").contains("OK"));
    let cluster = Cluster::redis(&url);
    assert!(!format!("{cluster:?}").contains("s3cret"), "{cluster:?}");
    let serve = |cluster: &Cluster| {
        Server::new(vec![]).bind("127.0.0.1:0").cluster(cluster.clone()).spawn()
    };
    let (first, second) = (serve(&cluster).unwrap(), serve(&cluster).unwrap());
    let error = serve(&Cluster::redis(&url)).unwrap_err().to_string();
    assert!(error.contains("`cluster` has to be the same"), "{error}");
    first.shutdown().unwrap();
    assert!(cluster.status().is_connected, "a server is in it still");
    second.shutdown().unwrap();
    assert_eq!(cluster.status(), rwf::cluster::ClusterStatus::default());
    // The process may join again, another one too.
    let other = Cluster::redis(&url).prefix("other");
    let server = serve(&other).unwrap();
    assert!(other.status().is_connected);
    drop(server);
    // Topics of `rwf` have channels that begin like those of the last one.
    for wrong in ["", "rwf\n", "rwf:topic"] {
        let error = serve(&Cluster::redis(&url).prefix(wrong)).unwrap_err().to_string();
        assert!(error.contains("`prefix` has to be"), "{error}");
    }
}

#[test]
fn a_message_that_comes_again_after_its_topic_was_left_and_joined_comes_once() {
    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    let mut a = Node::start(&redis.url(), &QUICK);
    let mut alice = join(&a, "alice", "room");
    // As a node sends it whose connection has broken before Redis could confirm it.
    let label = format!("\\x01{}{}{}", "\\x07".repeat(8), "\\x00".repeat(8), "\\x02".repeat(8));
    let publish = format!("PUBLISH rwf:topic:room \"{label}\\x01\\x00\\x00\\x00\\x00\\x00once\"");
    assert_eq!(redis.ask(&publish), ":1");
    assert_eq!(alice.text_frame(), "once");
    a.ask("unsubscribe session:alice room");
    a.wait_until("nobody hears it", |_| redis.subscribers("rwf:topic:room") == 0);
    a.ask("subscribe session:alice room");
    a.wait_until("alice hears it", |_| redis.subscribers("rwf:topic:room") == 1);
    assert_eq!(redis.ask(&publish), ":1");
    a.wait_until("it is seen to be a repetition", |a| a.count("repeated") == 1);
    echo(&mut alice);
}

#[test]
fn messages_of_other_versions_are_passed_over_and_counted() {
    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    let mut a = Node::start(&redis.url(), &QUICK);
    let (mut alice, _) = a.connect("alice");
    for payload in ["\"\\x02from tomorrow\"", "\"by hand\"", "\"\"", "\"\\x01short\""] {
        redis.ask(&format!("PUBLISH rwf:session:@alice {payload}"));
    }
    // A kind of tomorrow, in an envelope of today.
    let label = "\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x07\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x01";
    redis.ask(&format!("PUBLISH rwf:session:@alice \"{label}\\x63and more\""));
    a.wait_until("all five are counted", |a| a.count("unknown") == 5);
    echo(&mut alice);
}
