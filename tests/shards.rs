//! Several nodes over a Redis Cluster: what goes through which shard, and what happens when slots move and masters die.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "cluster/process.rs"]
mod process;
#[path = "cluster/redis.rs"]
mod redis;
#[path = "cluster/shards.rs"]
mod shards;

mod common;

use std::collections::HashSet;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use common::tls::Identity;
use common::{Random, Raw};
use process::{Node, join};
use redis::is_installed;
use shards::Shards;

/// Failures are found, and waited out, in a time that a test has.
const QUICK: [&str; 5] = [
    "probe_interval=200",
    "probe_timeout=1500",
    "connect_timeout=1000",
    "subscribe_timeout=2000",
    "max_reconnect_delay=200",
];

fn nodes<const N: usize>(url: &str) -> [Node; N] {
    std::array::from_fn(|_| Node::start(url, &QUICK))
}

fn counts<const N: usize>(node: &mut Node, names: [&str; N]) -> [u64; N] {
    names.map(|name| node.count(name))
}

#[test]
fn every_kind_of_receiver_is_reached_over_all_shards_once_and_in_the_order_of_its_channel() {
    if !is_installed() {
        return;
    }
    let shards = Shards::start();
    let [mut a, mut b, mut c] = nodes(&shards.url());
    let users: Vec<_> = (0..30).map(|number| format!("user{number}")).collect();
    let used: HashSet<_> =
        users.iter().map(|user| shards.master_of(&format!("rwf:session:@{user}"))).collect();
    assert_eq!(used.len(), 3, "not all shards are used");
    let mut clients: Vec<_> = users.iter().map(|user| b.connect(user)).collect();
    let mut others: Vec<_> =
        users.iter().map(|user| join(&c, user, &format!("of {user}"))).collect();
    for user in &users {
        for number in 0..20 {
            assert_eq!(a.ask(&format!("send session:{user} {number}")), "0 Handed");
            assert_eq!(a.ask(&format!("send topic:of {user} topic {number}")), "0 Handed");
        }
    }
    for ((user, (client, id)), other) in users.iter().zip(&mut clients).zip(&mut others) {
        for number in 0..20 {
            assert_eq!(client.text_frame(), number.to_string(), "{user}");
        }
        let texts: Vec<_> = (0..20).map(|_| other.text_frame()).collect();
        assert!((0..20).map(|number| number.to_string()).eq(texts), "{user}");
        assert_eq!(a.ask(&format!("send connection:{id} to you")), "0 Handed");
        assert_eq!(client.text_frame(), "to you");
        assert_eq!(a.ask(&format!("members session:{user}")), format!("(2, 1) @{user}"));
    }
    assert_eq!(a.ask("send all everybody"), "0 Handed");
    for (client, _) in &mut clients {
        assert_eq!(client.text_frame(), "everybody");
    }
    for other in &mut others {
        assert_eq!(other.text_frame(), "everybody");
    }
    drop((clients, others));
    for node in [&mut a, &mut b, &mut c] {
        node.wait_until("it hears its own channels alone", |node| node.count("subscriptions") == 4);
        let names = ["lost", "missed", "repeated", "unknown", "unanswered", "reconnects"];
        assert_eq!(counts(node, names), [0; 6], "{}", node.log());
    }
}

#[test]
fn over_tls_all_shards_are_reached_too() {
    if !is_installed() {
        return;
    }
    let shards = Shards::start_secure(&Identity::new(&["localhost", "127.0.0.1"]));
    let roots = shards.roots();
    let settings = [&QUICK[..], &[&*roots]].concat();
    let [mut a, b] = [0, 1].map(|_| Node::start(&shards.secure_url(), &settings));
    let mut used = HashSet::new();
    for user in (0..20).map(|number| format!("user{number}")) {
        let (mut client, _) = b.connect(&user);
        assert_eq!(a.ask(&format!("send session:{user} hello")), "0 Handed");
        assert_eq!(client.text_frame(), "hello");
        used.insert(shards.master_of(&format!("rwf:session:@{user}")));
    }
    assert_eq!(used.len(), 3, "not all shards are used");
    let error = Node::try_start(&shards.secure_url(), &QUICK).expect_err("nobody knows it");
    assert!(error.contains("to `Cluster::root_certificates`"), "{error}");
}

#[test]
fn a_prefix_in_braces_keeps_all_at_one_master_and_in_the_order_of_the_sender() {
    if !is_installed() {
        return;
    }
    let shards = Shards::start();
    let settings = [&QUICK[..], &["prefix={rwf}"]].concat();
    let [mut a, b] = [0, 1].map(|_| Node::start(&shards.url(), &settings));
    let (mut client, id) = b.connect("bob");
    client.send_text("join room");
    assert_eq!(client.text_frame(), "joined room");
    let ways = ["session:bob", "topic:room", "all", &format!("connection:{id}")];
    for round in 0..50 {
        for way in ways {
            a.ask(&format!("burst {way} 5 {round}"));
        }
    }
    for round in 0..50 {
        for number in (0..ways.len()).flat_map(|_| 0..5) {
            assert_eq!(client.text_frame(), format!("{round} {number}"));
        }
    }
    let master = shards.master_of("{rwf}:all");
    let heard = |at: usize| shards.subscribers(at, "{rwf}:session:@bob");
    assert_eq!([0, 1, 2].map(heard), [0, 1, 2].map(|at| usize::from(at == master)));
}

#[test]
fn a_slot_moves_while_numbered_messages_flow_and_each_comes_once_or_is_told_as_missed() {
    if !is_installed() {
        return;
    }
    let shards = Shards::start();
    let [mut a, mut b] = nodes(&shards.url());
    let (mut bob, _) = b.connect("bob");
    let channel = "rwf:session:@bob";
    let (slot, mut at) = (shards.slot(channel), shards.master_of(channel));
    a.ask("send session:bob begin");
    assert_eq!(bob.text_frame(), "begin");
    let reader = thread::spawn(move || {
        let (mut texts, mut text) = (Vec::new(), String::new());
        while text != "end" {
            text = bob.text_frame();
            texts.push(text.clone());
        }
        texts
    });
    let (mut sent, began, mut moves) = (0_u64, Instant::now(), 0);
    while moves < 6 || began.elapsed() < Duration::from_secs(2) {
        assert_eq!(a.ask(&format!("burst session:bob 50 {sent}")).parse::<u64>().err(), None);
        sent += 50;
        // However long masters take to agree, it has room.
        a.wait_until("few wait", |a| a.count("waiting_messages") < 5000);
        if moves < 6 && sent % 400 == 0 {
            let to = (at + 1) % 3;
            shards.move_slot(slot, at, to);
            (at, moves) = (to, moves + 1);
            b.wait_until("the subscription has moved", |_| shards.subscribers(to, channel) == 1);
        }
    }
    a.wait_until("all is confirmed", |a| a.count("waiting_messages") == 0);
    a.ask("send session:bob end");
    let texts = reader.join().unwrap();
    let unique: HashSet<_> = texts.iter().collect();
    assert_eq!(unique.len(), texts.len(), "some came twice");
    let places: Vec<(u64, u64)> = texts[..texts.len() - 1]
        .iter()
        .map(|text| {
            let (burst, number) = text.split_once(' ').expect(text);
            (burst.parse().unwrap(), number.parse().unwrap())
        })
        .collect();
    assert!(places.is_sorted(), "not in order");
    let missed = b.count("missed");
    let came = places.len() as u64;
    assert_eq!(came + missed, sent, "neither here nor told: {came} came; {}", b.log());
    assert!(came > sent / 2, "of {sent} only {came} came");
    assert_eq!([a.count("lost"), b.count("lost")], [0, 0], "{}", a.log());
    for node in [&mut a, &mut b] {
        node.wait_until_connected(true);
        assert_eq!(node.count("reconnects"), 0, "no connection ends for a slot: {}", node.log());
    }
}

#[test]
fn a_master_dies_and_comes_back_and_the_others_go_on() {
    if !is_installed() {
        return;
    }
    let mut shards = Shards::start();
    let [mut a, mut b] = nodes(&shards.url());
    let names = ["alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi"];
    let master = |name: &str| shards.master_of(&format!("rwf:session:@{name}"));
    let dead = 1;
    let hit = *names.iter().find(|name| master(name) == dead).expect("one at that master");
    let spared = *names.iter().find(|name| master(name) != dead).expect("one elsewhere");
    let (mut hit_client, _) = b.connect(hit);
    let (mut spared_client, _) = b.connect(spared);
    a.ask(&format!("send session:{hit} begin"));
    assert_eq!(hit_client.text_frame(), "begin");
    shards.masters[dead].kill();
    let address = shards.masters[dead].address;
    for node in [&mut a, &mut b] {
        node.wait_until_connected(false);
        let status = node.ask("status");
        assert!(status.contains(&format!("the shard {address}: ")), "{status}");
    }
    let error = Node::try_start(&shards.url(), &QUICK).expect_err("a master is missing");
    assert!(error.contains(&format!("the shard {address}: cannot be reached")), "{error}");
    assert_eq!(a.ask(&format!("send session:{hit} waits")), "0 Waiting");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        // The other masters have found by then that it is gone.
        assert_eq!(a.ask(&format!("send session:{spared} goes on")), "0 Handed");
        assert_eq!(spared_client.text_frame(), "goes on");
        thread::sleep(Duration::from_millis(20));
    }
    let (mut late, _) = a.connect("late");
    late.send_text("echo");
    assert_eq!(late.text_frame(), "echo");
    shards.masters[dead].start_again();
    for node in [&mut a, &mut b] {
        node.wait_until_connected(true);
    }
    shards.wait_until_whole();
    a.ask(&format!("send session:{hit} again"));
    let mut texts = vec![hit_client.text_frame()];
    while texts.last().unwrap() != "again" {
        texts.push(hit_client.text_frame());
    }
    assert_eq!(texts.len() as u64 + b.count("missed"), 2, "{texts:?}");
    for node in [&mut a, &mut b] {
        assert_eq!(counts(node, ["lost", "repeated"]), [0, 0], "{}", node.log());
        assert!(
            node.log().contains(&format!("a shard is away redis={address}: ")),
            "{}",
            node.log()
        );
        assert!(
            node.log().contains(&format!("a shard is back redis={address} ")),
            "{}",
            node.log()
        );
        let gaps = node.ask("gaps");
        assert!(gaps.contains(&format!("the shard {address}: ")), "{gaps}");
    }
}

#[test]
fn a_replica_takes_the_place_of_its_master_and_what_waited_goes_there() {
    if !is_installed() {
        return;
    }
    let mut shards = Shards::start();
    let replica = shards.add_replica(2);
    let settings = [&QUICK[..], &["max_waiting_age=60000"]].concat();
    let [mut a, mut b] = [0, 1].map(|_| Node::start(&shards.url(), &settings));
    let name = (0..).map(|number| format!("user{number}"));
    let mut name = name.filter(|name| shards.master_of(&format!("rwf:session:@{name}")) == 2);
    let name = name.next().unwrap();
    let (mut client, _) = b.connect(&name);
    a.ask(&format!("send session:{name} begin"));
    assert_eq!(client.text_frame(), "begin");
    shards.masters[2].kill();
    for node in [&mut a, &mut b] {
        node.wait_until_connected(false);
    }
    assert_eq!(a.ask(&format!("send session:{name} waits")), "0 Waiting");
    shards.wait_until("the replica has taken its place", || {
        replica.ask_all("ROLE").contains("master")
    });
    for node in [&mut a, &mut b] {
        node.wait_until_connected(true);
    }
    for node in [&mut a, &mut b] {
        node.wait_until("the program is told that it is back", |node| {
            node.ask("gaps").contains("is back in the cluster")
        });
        assert_eq!(node.count("reconnects"), 1, "{}", node.log());
    }
    a.wait_until("what waited is there", |a| a.count("waiting_messages") == 0);
    assert_eq!(a.ask(&format!("send session:{name} again")), "0 Handed");
    let mut texts = vec![client.text_frame()];
    while texts.last().unwrap() != "again" {
        texts.push(client.text_frame());
    }
    assert_eq!(texts.len() as u64 + b.count("missed"), 2, "{texts:?}");
    for node in [&mut a, &mut b] {
        assert_eq!(counts(node, ["lost", "repeated"]), [0, 0], "{}", node.log());
    }
}

#[test]
fn a_dead_master_that_brings_nothing_of_two_nodes_hides_neither_from_the_other() {
    if !is_installed() {
        return;
    }
    let mut shards = Shards::start();
    let settings = [&QUICK[..], &["presence_lease=1000"]].concat();
    let url = shards.url();
    let of_node = |node: &mut Node| {
        let status = node.ask("status");
        let (_, id) = status.split_once("node: Some(").expect("it has joined");
        ["node", "notices"].map(|kind| shards.master_of(&format!("rwf:{kind}:{}", &id[..16])))
    };
    // A node has its name, and so its masters, by chance.
    let (mut a, mut b, dead) = loop {
        let [mut a, mut b] = [0, 1].map(|_| Node::start(&url, &settings));
        let used =
            [of_node(&mut a), of_node(&mut b), [shards.master_of("rwf:notices"); 2]].concat();
        if let Some(free) = (0..3).find(|master| !used.contains(master)) {
            break (a, b, free);
        }
    };
    let names = (0..).map(|number| format!("user{number}"));
    let mut names = names.filter(|name| shards.master_of(&format!("rwf:session:@{name}")) != dead);
    let [first, second] = [0, 1].map(|_| names.next().unwrap());
    drop(names);
    let (_first, _) = a.connect(&first);
    b.ask("watch everybody all");
    let mut told = String::new();
    let mut wait_for = |b: &mut Node, name: &str| {
        b.wait_until(&format!("it is told of {name}"), |b| {
            told += &b.ask("changes everybody");
            told.contains(&format!("+@{name}"))
        });
        told.clone()
    };
    wait_for(&mut b, &first);
    shards.masters[dead].kill();
    for node in [&mut a, &mut b] {
        node.wait_until_connected(false);
    }
    let (_second, _) = a.connect(&second);
    wait_for(&mut b, &second);
    // Whoever was taken for gone would be after a lease.
    thread::sleep(Duration::from_secs(3));
    let (_third, _) = a.connect(&format!("{second}0"));
    let told = wait_for(&mut b, &format!("{second}0"));
    assert!(!told.contains('-'), "nobody has left: {told}");
}

#[test]
fn a_slot_that_each_master_says_another_has_is_told_and_asked_for_again_without_a_spin() {
    if !is_installed() {
        return;
    }
    let shards = Shards::start();
    let [mut a, mut b] = nodes(&shards.url());
    let (mut bob, _) = b.connect("bob");
    a.ask("send session:bob begin");
    assert_eq!(bob.text_frame(), "begin");
    let channel = "rwf:session:@bob";
    let (slot, owner) = (shards.slot(channel), shards.master_of(channel));
    let other = (owner + 1) % 3;
    shards.tell_of_slot(owner, slot, other);
    b.wait_until_connected(false);
    let status = b.ask("status");
    assert!(status.contains("masters refuse slots that they have by the map"), "{status}");
    let outcome = a.ask("send session:bob waits");
    assert!(outcome.contains("Waiting") || outcome.contains("Handed"), "{outcome}");
    let asked = |it: &Shards| {
        let told = it.masters[other].ask_all("INFO commandstats");
        let line = told.lines().find(|line| line.starts_with("cmdstat_ssubscribe"));
        let calls = line.and_then(|line| line.split(&['=', ','][..]).nth(1)?.parse::<u64>().ok());
        calls.unwrap_or(0)
    };
    let before = asked(&shards);
    thread::sleep(Duration::from_secs(1));
    assert!(asked(&shards) - before < 50, "it spins");
    for master in 0..3 {
        shards.tell_of_slot(master, slot, other);
    }
    for node in [&mut a, &mut b] {
        node.wait_until_connected(true);
    }
    b.wait_until("it hears again", |_| shards.subscribers(other, channel) == 1);
    a.ask("send session:bob end");
    let mut texts = vec![bob.text_frame()];
    while texts.last().unwrap() != "end" {
        texts.push(bob.text_frame());
    }
    assert_eq!(texts.len() as u64 + b.count("missed"), 2, "{texts:?}");
}

/// Reads until `end`.
fn read(mut client: Raw) -> JoinHandle<Vec<String>> {
    thread::spawn(move || {
        let mut texts = Vec::new();
        loop {
            match client.text_frame() {
                text if text == "end" => return texts,
                text => texts.push(text),
            }
        }
    })
}

#[test]
fn whatever_moves_and_dies_each_message_comes_once_and_in_order_or_is_told_as_missed() {
    if !is_installed() {
        return;
    }
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let mut shards = Shards::start();
    let settings = [&QUICK[..], &["max_waiting_age=3000"]].concat();
    let [mut a, mut b] = [0, 1].map(|_| Node::start(&shards.url(), &settings));
    let users: Vec<_> = (0..12).map(|number| format!("user{number}")).collect();
    let channels: Vec<_> = users.iter().map(|user| format!("rwf:session:@{user}")).collect();
    let slots: Vec<_> = channels.iter().map(|channel| shards.slot(channel)).collect();
    let readers: Vec<_> = users
        .iter()
        .map(|user| {
            let (mut client, _) = b.connect(user);
            assert_eq!(a.ask(&format!("send session:{user} begin")), "0 Handed");
            assert_eq!(client.text_frame(), "begin");
            read(client)
        })
        .collect();
    let (began, mut sent, mut faults) = (Instant::now(), 0, Vec::new());
    while began.elapsed() < Duration::from_secs(8) {
        for user in &users {
            let count = 1 + random.below(30);
            a.ask(&format!("burst session:{user} {count} {sent:09}"));
            sent += count as u64;
        }
        let master = random.below(3);
        match random.below(12) {
            0..=5 => {
                let slot = slots[random.below(slots.len())];
                if shards.move_slot_to(slot, master) {
                    faults.push(format!("{:?} slot {slot} to {master}", began.elapsed()));
                }
            }
            6 => {
                // One that dies before is none for which anybody can say who has what.
                shards.wait_until_agreed();
                shards.masters[master].kill();
                thread::sleep(Duration::from_millis(random.below(400) as u64));
                shards.masters[master].start_again();
                shards.wait_until_whole();
                faults.push(format!("{:?} killed {master}", began.elapsed()));
            }
            7 => {
                shards.masters[master].ask("CLIENT KILL TYPE pubsub");
                faults.push(format!("{:?} cut {master}", began.elapsed()));
            }
            8 => {
                shards.masters[master].pause();
                thread::sleep(Duration::from_millis(random.below(300) as u64));
                shards.masters[master].go_on();
                faults.push(format!("{:?} paused {master}", began.elapsed()));
            }
            _ => {}
        }
    }
    for node in [&mut a, &mut b] {
        node.wait_until_connected(true);
    }
    for channel in &channels {
        let heard =
            || [0, 1, 2].map(|master| shards.subscribers(master, channel)).iter().sum::<usize>();
        let what = || format!("{channel} is heard at one; {faults:#?} {}", b.log());
        shards.wait_until(&what(), || heard() == 1);
    }
    a.wait_until("nothing waits", |a| a.count("waiting_messages") == 0);
    for user in &users {
        assert_eq!(a.ask(&format!("send session:{user} end")), "0 Handed");
    }
    let mut came = 0;
    for (user, reader) in users.iter().zip(readers) {
        let texts = reader.join().unwrap();
        let place = |text: &String| {
            let (burst, number) = text.split_once(' ').expect(text);
            (burst.parse::<u64>().unwrap(), number.parse::<u64>().unwrap())
        };
        let places: Vec<_> = texts.iter().map(place).collect();
        let is_wrong = |pair: &&[(u64, u64)]| pair[0] >= pair[1];
        let wrong = places.windows(2).find(is_wrong);
        assert_eq!(wrong, None, "{user}: twice or not in order; {faults:#?}");
        came += places.len() as u64;
    }
    let missed = b.count("missed");
    assert_eq!(came + missed, sent, "neither here nor told: {came} came; {faults:#?} {}", b.log());
    assert!(came > sent / 2, "of {sent} only {came} came: {faults:#?}");
}

#[test]
fn a_user_that_may_do_little_suffices_and_one_that_may_not_ask_for_the_map_is_told_so() {
    if !is_installed() {
        return;
    }
    let shards = Shards::start();
    for master in &shards.masters {
        let rights =
            "on >s3cret resetchannels &rwf:* -@all +hello +spublish +ssubscribe +sunsubscribe";
        assert_eq!(master.ask(&format!("ACL SETUSER chat {rights} +cluster|slots")), "+OK");
        assert_eq!(master.ask(&format!("ACL SETUSER blind {rights}")), "+OK");
    }
    let address = shards.masters[0].address;
    let [mut a, b] = nodes(&format!("redis://chat:s3cret@{address}"));
    let mut bob = join(&b, "bob", "room");
    assert_eq!(a.ask("send topic:room hello"), "0 Handed");
    assert_eq!(bob.text_frame(), "hello");
    let error = Node::try_start(&format!("redis://blind:s3cret@{address}"), &QUICK).err();
    let error = error.expect("it may not ask for the map");
    assert!(error.contains("CLUSTER SLOTS") && error.contains("the user may not do it"), "{error}");
}
