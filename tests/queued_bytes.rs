//! What waits for slow clients counts while their connections last. Alone in its file: it fills the whole process's account.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::{Keeping, Raw, start, wait_until};
use parking_lot::Mutex;
use rwf::controller::{Overflow, Websocket};
use rwf::http::{Server, ServerHandle};
use rwf::prelude::*;

/// Sends until the connection takes no more; how many messages of 64 KiB it took.
fn fill(user: i64, limit: usize) -> usize {
    let message = Message::binary(vec![7; 64 << 10]);
    let mut taken = 0;
    while Comms::websocket(user).send(&message).is_ok() {
        taken += 1;
        assert!(taken < limit >> 14, "there is no limit");
    }
    taken
}

/// Has newest values wait for the answers of a client again and again, until more bytes have gone out than may wait.
fn hold_values(server: &ServerHandle, limit: usize) {
    let mut client = Raw::open(server.local_addr(), "/73");
    let reading = thread::spawn(move || {
        let mut received = 0;
        while received < 2 * limit {
            let frame = client.frame();
            received += frame.payload.len();
            if frame.first == 0x89 {
                client.send_frame(0x8a, &frame.payload);
            }
        }
    });
    let value = "-".repeat(1 << 20);
    // It leaves when it has enough; one that is closed before fails there.
    while !reading.is_finished() && Comms::websocket(73).send_latest("value", &value).is_ok() {
        thread::sleep(Duration::from_millis(1));
    }
    reading.join().unwrap();
}

#[test]
fn what_a_client_left_unread_counts_no_longer_than_its_connection() {
    let kept = Arc::new(Mutex::new(Vec::new()));
    // Much more than the systems hold.
    let limit = 64 << 20;
    let server = start(
        Server::new(vec![route!("/:user" => Keeping(Arc::clone(&kept)))])
            .max_queued_bytes(limit)
            .websocket(
                Websocket::new()
                    .overflow(Overflow::Refuse)
                    .outbox_bytes(limit)
                    .max_lag(Duration::from_millis(50)),
            ),
    );
    let (gone, next) = (71, 72);
    let open = |user: i64| Raw::open(server.local_addr(), &format!("/{user}"));
    let client = open(gone);
    fill(gone, limit);
    drop(client);
    wait_until("the client is gone", || !Comms::websocket(gone).is_connected());
    // Its request is kept by the program, and with it whatever that holds.
    assert_eq!(kept.lock().len(), 1);
    let _client = open(next);
    hold_values(&server, limit);
    // A connection is over for the program a moment before what it held is given back.
    let mut taken = 0;
    wait_until("half of the limit has room again", || {
        taken += fill(next, limit);
        taken * (64 << 10) > limit / 2
    });
}
