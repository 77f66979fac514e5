//! Questions to clients on all nodes of a cluster: the first answer is heard, and where there is none it is said why.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "cluster/process.rs"]
mod process;
#[path = "cluster/redis.rs"]
mod redis;

mod common;

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::Raw;
use process::{Node, QUICK};
use redis::{Redis, is_installed};

/// Longer than anything takes that comes at once.
const LONG: Duration = Duration::from_secs(15);

fn nodes<const N: usize>(url: &str) -> [Node; N] {
    std::array::from_fn(|_| Node::start(url, &QUICK))
}

/// The number of the next question, and what it asks.
#[track_caller]
fn question(client: &mut Raw) -> (String, String) {
    let text = client.text_frame();
    let (head, question) = text.split_once('\n').unwrap_or_else(|| panic!("no question: {text}"));
    (head.strip_prefix("rwf-question ").expect(head).to_owned(), question.to_owned())
}

/// Has a client answer the next question with itself and `text`.
fn answering(mut client: Raw, text: &str) -> JoinHandle<Raw> {
    let text = text.to_owned();
    thread::spawn(move || {
        let (number, question) = question(&mut client);
        client.send_text(&format!("rwf-answer {number}\n{question} {text}"));
        client
    })
}

/// That the client's handler gets its messages, and has got nothing before.
#[track_caller]
fn echo(client: &mut Raw) {
    client.send_text("echo");
    assert_eq!(client.text_frame(), "echo");
}

#[test]
fn a_client_on_another_node_answers_whatever_it_is_named_by() {
    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    let [mut a, mut b, mut c] = nodes(&redis.url());
    let (mut bob, id) = b.connect("bob");
    bob.send_text("join room");
    assert_eq!(bob.text_frame(), "joined room");
    for who in ["session:bob", "topic:room", &format!("connection:{id}"), "all", "but:alice"] {
        for node in [&mut a, &mut b, &mut c] {
            let answered = answering(bob, "yes");
            let answer = node.ask(&format!("request {who} 20000 really?"));
            assert_eq!(answer, "Text(\"really? yes\")", "{who}");
            bob = answered.join().unwrap();
        }
    }
    // In bytes, too.
    let answering = thread::spawn(move || {
        let (number, _) = question(&mut bob);
        bob.send_frame(0x82, &[b"rwf-answer ", number.as_bytes(), b"\n", &[0, 159]].concat());
        bob
    });
    assert_eq!(a.ask("request session:bob 20000 bytes"), "Binary(b\"\\0\\x9f\")");
    let mut bob = answering.join().unwrap();
    echo(&mut bob);
    for mut node in [a, b, c] {
        assert_eq!(["lost", "missed", "repeated", "unknown"].map(|name| node.count(name)), [0; 4]);
    }
}

#[test]
fn the_first_of_many_tabs_is_heard_and_what_the_others_answer_late_is_no_message() {
    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    let [mut a, b, c] = nodes(&redis.url());
    let (mut alice_a, _) = a.connect("alice");
    let (mut alice_b, _) = b.connect("alice");
    let (mut alice_b2, _) = b.connect("alice");
    let (alice_c, _) = c.connect("alice");
    let first = answering(alice_c, "from c");
    assert_eq!(a.ask("request session:alice 20000 who?"), "Text(\"who? from c\")");
    first.join().unwrap();
    for client in [&mut alice_a, &mut alice_b, &mut alice_b2] {
        let (number, _) = question(client);
        client.send_text(&format!("rwf-answer {number}\ntoo late"));
        echo(client);
    }
    // One of this node is heard as well, and nobody waits for the others.
    let first = answering(alice_a, "from a");
    assert_eq!(a.ask("request session:alice 20000 who?"), "Text(\"who? from a\")");
    first.join().unwrap();
    let (number, _) = question(&mut alice_b);
    alice_b.send_text(&format!("rwf-answer {number}\ntoo late"));
    echo(&mut alice_b);
}

#[test]
fn a_question_without_an_answer_says_why_and_as_soon_as_that_is_known() {
    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    let settings = [&QUICK[..], &["max_message_size=50000"]].concat();
    let [mut a, mut b, mut c] = std::array::from_fn(|_| Node::start(&redis.url(), &settings));
    let (mut bob, id) = b.connect("bob");

    let began = Instant::now();
    let nobody = "NotConnected: nobody is connected who could answer";
    for who in ["session:nobody", "topic:nothing", "but:bob"] {
        assert_eq!(a.ask(&format!("request {who} 60000 ?")), nobody, "{who}");
    }
    let gone = a.ask(&format!("request connection:999{id} 60000 ?"));
    assert_eq!(gone, nobody, "a connection that is not there");
    assert!(began.elapsed() < LONG, "to know that nobody is there took {:?}", began.elapsed());

    // One that does not answer: its late answer goes nowhere.
    assert!(a.ask("request session:bob 300 ?").starts_with("Timeout: "));
    let (number, _) = question(&mut bob);
    bob.send_text(&format!("rwf-answer {number}\ntoo late"));
    echo(&mut bob);

    // What cannot cross is said at once, and by whoever cannot bring it.
    let large = "x".repeat(60_000);
    let began = Instant::now();
    assert!(a.ask(&format!("request session:bob 60000 {large}")).starts_with("Lost: "));
    let answered = answering(bob, &large);
    assert!(a.ask("request session:bob 60000 ?").starts_with("Lost: "));
    assert!(began.elapsed() < LONG, "that it cannot cross took {:?}", began.elapsed());
    let mut bob = answered.join().unwrap();
    echo(&mut bob);

    // Those who leave, or are closed, cannot answer.
    let leaving = thread::spawn(move || drop(question(&mut bob)));
    assert!(a.ask("request session:bob 60000 ?").starts_with("Closed: "));
    leaving.join().unwrap();
    let (mut carol, _) = c.connect("carol");
    let closing = thread::spawn(move || {
        question(&mut carol);
        c.ask("shutdown");
        c
    });
    let answer = a.ask("request session:carol 60000 ?");
    assert!(answer.starts_with("Shutdown: ") || answer.starts_with("Closed: "), "{answer}");
    assert!(began.elapsed() < 2 * LONG, "that they have left took {:?}", began.elapsed());
    closing.join().unwrap();

    // A node that dies says nothing.
    let (mut dave, _) = b.connect("dave");
    let killing = thread::spawn(move || {
        question(&mut dave);
        b.kill();
    });
    assert!(a.ask("request session:dave 3000 ?").starts_with("Timeout: "));
    killing.join().unwrap();
    a.wait_until("Redis knows", |a| {
        a.ask("request session:dave 3000 ?").starts_with("NotConnected")
    });
}

#[test]
fn a_node_that_leaves_while_it_asks_has_no_answer_at_once() {
    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    let [mut a, b] = nodes(&redis.url());
    let (mut bob, _) = b.connect("bob");
    a.ask("begin_request session:bob ?");
    question(&mut bob);
    let began = Instant::now();
    a.ask("shutdown");
    let answer = a.ask("end_request");
    assert!(answer.starts_with("Shutdown: "), "{answer}");
    assert!(began.elapsed() < LONG, "it waited {:?}", began.elapsed());
}

#[test]
fn a_handler_that_asks_its_own_client_gets_an_error_and_those_of_others_are_asked() {
    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    let [a, b] = nodes(&redis.url());
    let (mut alice, alice_id) = a.connect("alice");
    let (bob, bob_id) = b.connect("bob");
    for who in ["session:alice", &format!("connection:{alice_id}"), "all"] {
        alice.send_text(&format!("ask {who}"));
        assert_eq!(alice.text_frame(), "Err(OwnHandler)", "{who}");
    }
    let answered = answering(bob, "yes");
    alice.send_text(&format!("ask connection:{bob_id}"));
    assert_eq!(alice.text_frame(), "Ok(Text(\"? yes\"))");
    answered.join().unwrap();
}

#[test]
fn while_redis_is_away_those_who_are_here_are_asked() {
    if !is_installed() {
        return;
    }
    let mut redis = Redis::start();
    let [mut a, mut b] = nodes(&redis.url());
    let (alice, _) = a.connect("alice");
    let (bob, _) = b.connect("bob");
    redis.kill();
    a.wait_until_connected(false);
    let began = Instant::now();
    assert!(a.ask("request session:bob 60000 ?").starts_with("Alone: "));
    let answered = answering(alice, "yes");
    assert_eq!(a.ask("request session:alice 60000 here?"), "Text(\"here? yes\")");
    answered.join().unwrap();
    assert!(began.elapsed() < LONG, "somebody waited for Redis: {:?}", began.elapsed());
    redis.start_again();
    a.wait_until_connected(true);
    b.wait_until_connected(true);
    let answered = answering(bob, "yes");
    assert_eq!(a.ask("request session:bob 20000 there?"), "Text(\"there? yes\")");
    answered.join().unwrap();
}

#[test]
fn many_questions_are_open_at_once_and_hold_up_no_message() {
    if !is_installed() {
        return;
    }
    const COUNT: usize = 100;
    let redis = Redis::start();
    let [mut a, b, mut c] = nodes(&redis.url());
    let (mut bob, _) = b.connect("bob");
    let asking = thread::spawn(move || a.ask(&format!("request_all session:bob {COUNT}")));
    let mut questions: Vec<_> = (0..COUNT).map(|_| question(&mut bob)).collect();
    // All are open.
    assert_eq!(c.ask("send session:bob meanwhile"), "0 Handed");
    assert_eq!(bob.text_frame(), "meanwhile");
    assert_eq!(c.ask("is_connected session:bob"), "true");
    questions.reverse();
    for (number, question) in questions {
        bob.send_text(&format!("rwf-answer {number}\n{question}"));
    }
    assert_eq!(asking.join().unwrap(), COUNT.to_string());
    echo(&mut bob);
}

/// Has a client read until it has got a ping, which it answers.
fn receiving(mut client: Raw) -> JoinHandle<Raw> {
    thread::spawn(move || {
        loop {
            let frame = client.frame();
            if frame.first == 0x89 {
                client.send_frame(0x8a, &frame.payload);
                return client;
            }
        }
    })
}

#[test]
fn a_flush_waits_for_the_clients_of_all_nodes_and_names_those_who_are_behind() {
    if !is_installed() {
        return;
    }
    let mut redis = Redis::start();
    let [mut a, b, c] = nodes(&redis.url());
    let clients = [&a, &b, &b, &c].map(|node| node.connect("alice").0);
    a.ask("burst session:alice 100 some");
    let reading = clients.map(receiving);
    assert_eq!(a.ask("flush session:alice 20000"), "4");
    let [alice_a, alice_b, _alice_b2, _alice_c] = reading.map(|reading| reading.join().unwrap());
    assert_eq!(a.ask("flush session:nobody 20000"), "0");
    assert_eq!(a.ask("flush topic:nothing 20000"), "0");

    // A client that does not read its ping, on the other node.
    let (_bob, bob_id) = b.connect("bob");
    let began = Instant::now();
    assert_eq!(
        a.ask("flush session:bob 2000"),
        format!("Missing {{ behind: [{bob_id}], gone: [] }}").replace(&bob_id, &debug(&bob_id))
    );
    assert!(began.elapsed() < LONG, "it took {:?}", began.elapsed());

    // A node that hangs says nothing.
    c.pause();
    let reading = [alice_a, alice_b].map(receiving);
    let answer = a.ask("flush session:alice 2000");
    assert!(answer.starts_with("Unanswered { nodes: 1, behind: ["), "{answer}");
    drop(reading);
    c.go_on();
    redis.kill();
    a.wait_until_connected(false);
    assert_eq!(a.ask("flush session:bob 2000"), "Alone");
}

/// A connection as its `Debug` writes it.
fn debug(id: &str) -> String {
    format!("{:?}", id.parse::<rwf::prelude::ConnectionId>().unwrap())
}
