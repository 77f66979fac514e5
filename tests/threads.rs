//! Threads come with connections and go with them. Alone in its file: it counts those of the whole process.

mod common;

use std::thread;

use common::{Echo, Guest, Raw, join, serve, wait_until};
use rwf::prelude::*;

/// How many threads this process has, where the system tells.
#[cfg(target_os = "linux")]
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("Linux lists a process's threads").count()
}

#[test]
#[cfg(target_os = "linux")]
fn an_idle_connection_is_one_thread_and_a_shutdown_leaves_none() {
    let before = threads();
    let server = serve(vec![route!("/" => Echo)]);
    let idle_server = threads();
    assert_eq!(idle_server, before + 2, "one accepts, one watches deadlines");

    let session = Guest::new();
    let cookie = session.cookie();
    let mut clients: Vec<_> =
        (0..10).map(|_| Raw::open_with(server.local_addr(), "/", &cookie)).collect();
    for client in &mut clients {
        client.send_text("hello");
    }
    for client in &mut clients {
        for _ in 0..10 {
            assert_eq!(client.text_frame(), "hello");
        }
    }
    assert_eq!(threads(), idle_server + 10, "a healthy connection needs no writer thread");

    let presence = Comms::notify().presence().unwrap();
    assert!(presence.recv_timeout(common::DEADLINE).is_ok_and(|change| change.has_joined()));
    assert_eq!(threads(), idle_server + 11, "a watch has a thread");
    let full = Comms::presence_in("").unwrap();
    drop((presence, full));
    wait_until("the watches' threads are gone", || threads() == idle_server + 10);

    clients.truncate(1);
    wait_until("the others are gone", || threads() == idle_server + 1);
    let mut client = clients.remove(0);
    let message = Message::binary(vec![7; 64 << 10]);
    let mut taken = 0;
    while Comms::websocket(session).send(&message).is_ok() {
        taken += 1;
        assert!(taken < 10_000, "{taken} messages of 64 KiB found room");
    }
    assert_eq!(threads(), idle_server + 2, "a client that does not read has a writer thread");

    let shutting_down = thread::spawn(move || server.shutdown().unwrap());
    for _ in 0..taken {
        client.frame();
    }
    client.close_frame();
    client.send_close(1013, "");
    client.expect_end();
    drop(client);
    let report = join("the shutdown", shutting_down);
    assert_eq!((report.closed, report.cut, report.running), (1, 0, 0));
    // The system lists a thread for a moment after it was joined.
    wait_until("no threads are left", || threads() == before);
}
