//! What a cluster costs, beside a bare Redis: how long a hop takes, how many messages cross in a second, how long one message to
//! 500 clients on each of three nodes takes, and what a message to one's own tab and an idle connection cost while a cluster
//! is on.
//!
//! `cargo build --release --examples && target/release/examples/cluster-bench` prints a table. Give it two cores that have
//! nothing else to do. What is compared is measured by turns, and the ratios are medians of those of each turn, so that they
//! bear more of what else the machine does than the figures.
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
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use crate::common::{Raw, raise_descriptor_limit};
    use crate::process::Node;
    use crate::redis::{Redis, is_installed};

    const TURNS: usize = 50;
    const HOPS: usize = 100;
    const BURSTS: usize = 15;
    const MESSAGES: usize = 40_000;
    const IDLE: usize = 500;
    const FOLLOWERS: usize = 500;
    const FAN_OUTS: usize = 40;

    pub(crate) fn main() {
        assert!(is_installed(), "there is nothing to compare with");
        raise_descriptor_limit();
        let redis = Redis::start();
        let mut alone = Node::start("none", &[]);
        let mut a = Node::start(&redis.url(), &["max_waiting_bytes=1000000000"]);
        let mut b = Node::start(&redis.url(), &["outbox_bytes=1000000000"]);

        let (mut own, mut own_in_cluster, mut bare, mut here, mut hop) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut ratios = Vec::new();
        let (mut by_itself, _) = alone.connect("alice");
        let (mut tab, _) = a.connect("alice");
        let (mut other, _) = a.connect("bob");
        let (mut same, _) = alone.connect("alice");
        let (mut far, _) = b.connect("alice");
        let mut pair = Pair::new(&redis);
        for _ in 0..TURNS {
            own.extend(times(|| round(&mut by_itself, "echo", None)));
            own_in_cluster.extend(times(|| round(&mut other, "echo", None)));
            let [mut of_bare, mut of_here, mut of_hop] = [
                times(|| pair.round()),
                times(|| round(&mut by_itself, "tell x", Some(&mut same))),
                times(|| round(&mut tab, "tell x", Some(&mut far))),
            ];
            let [bare_time, here_time, hop_time] =
                [&mut of_bare, &mut of_here, &mut of_hop].map(|times| median(times).as_secs_f64());
            ratios.push((hop_time - here_time) / bare_time);
            bare.append(&mut of_bare);
            here.append(&mut of_here);
            hop.append(&mut of_hop);
        }
        println!("{:44} {:>9} {:>9}", "", "p50", "p99");
        print("echo to one's own tab, without a cluster", &mut own);
        print("the same with a cluster", &mut own_in_cluster);
        print("a session's other tab, without a cluster", &mut here);
        print("a session's other tab, on another node", &mut hop);
        print("a bare PUBLISH to a bare SUBSCRIBE", &mut bare);
        println!(
            "what the other node adds, as a multiple of the bare one: {:.2}",
            middle(&mut ratios)
        );

        drop((tab, far, same, other, by_itself));
        fan_out(&mut alone, &mut [&mut a, &mut b, &mut Node::start(&redis.url(), &[])]);
        let (mut far, _) = b.connect("carol");
        let (mut rates, mut published, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..BURSTS {
            let began = Instant::now();
            a.ask(&format!("burst session:carol {MESSAGES} x"));
            for _ in 0..MESSAGES {
                far.text_frame();
            }
            let rate = MESSAGES as f64 / began.elapsed().as_secs_f64();
            let publishes = publish_rate(&redis);
            rates.push(rate);
            published.push(publishes);
            ratios.push(rate / publishes);
        }
        println!("{:.0} messages a second to another node", middle(&mut rates));
        println!("{:.0} PUBLISH a second by redis-benchmark, by 64", middle(&mut published));
        println!("the one as a multiple of the other: {:.2}", middle(&mut ratios));
        println!("lost {} missed {}", a.count("lost"), b.count("missed"));

        for node in [&mut alone, &mut a] {
            let before = node.memory();
            let clients: Vec<_> =
                (0..IDLE).map(|number| node.connect(&format!("idle{number}"))).collect();
            let each = (node.memory() - before) as f64 / clients.len() as f64 / 1024.0;
            println!("an idle connection: {each:.1} KiB");
        }
    }

    /// A table's line. The times are sorted.
    fn print(name: &str, times: &mut [Duration]) {
        times.sort_unstable();
        let at = |part: f64| times[(times.len() as f64 * part) as usize];
        println!("{name:44} {:>9.1?} {:>9.1?}", at(0.5), at(0.99));
    }

    /// One message to all followers of a topic, on one node and on three, by turns: until the last one has it.
    fn fan_out(alone: &mut Node, nodes: &mut [&mut Node; 3]) {
        let follow = |node: &Node, count| -> Vec<_> {
            let follower = |_| {
                let (mut client, _) = node.connect("follower");
                client.send_text("join news");
                assert_eq!(client.text_frame(), "joined news");
                client
            };
            (0..count).map(follower).collect()
        };
        let mut on_one = follow(alone, nodes.len() * FOLLOWERS);
        let mut on_three: Vec<_> = nodes.iter().flat_map(|node| follow(node, FOLLOWERS)).collect();
        let send = |node: &mut Node, clients: &mut [Raw]| {
            let began = Instant::now();
            node.ask("send topic:news all of you");
            clients.iter_mut().for_each(|client| drop(client.text_frame()));
            began.elapsed()
        };
        let (mut one, mut three) = (Vec::new(), Vec::new());
        for _ in 0..FAN_OUTS {
            one.push(send(alone, &mut on_one));
            three.push(send(nodes[0], &mut on_three));
        }
        print("a topic's 1,500 clients, without a cluster", &mut one);
        print("the same, 500 on each of three nodes", &mut three);
    }

    fn times(mut round: impl FnMut()) -> Vec<Duration> {
        let time = |_| {
            let began = Instant::now();
            round();
            began.elapsed()
        };
        (0..HOPS).map(time).collect()
    }

    fn median(times: &mut [Duration]) -> Duration {
        times.sort_unstable();
        times[times.len() / 2]
    }

    fn middle(values: &mut [f64]) -> f64 {
        values.sort_unstable_by(f64::total_cmp);
        values[values.len() / 2]
    }

    /// Sends, and waits for what comes to the other client, or back.
    fn round(from: &mut Raw, text: &str, to: Option<&mut Raw>) {
        from.send_text(text);
        match to {
            Some(to) => {
                to.text_frame();
                from.text_frame();
            }
            None => drop(from.text_frame()),
        }
    }

    /// Two connections to Redis with nothing around them.
    struct Pair {
        publishes: TcpStream,
        hears: TcpStream,
    }

    impl Pair {
        fn new(redis: &Redis) -> Self {
            let mut streams = [(); 2].map(|()| {
                let stream = TcpStream::connect(redis.address).unwrap();
                stream.set_nodelay(true).unwrap();
                stream
            });
            streams[1].write_all(b"SUBSCRIBE bare\r\n").unwrap();
            let mut answer = [0; 256];
            assert!(streams[1].read(&mut answer).unwrap() > 0);
            let [publishes, hears] = streams;
            Self { publishes, hears }
        }

        fn round(&mut self) {
            let payload = "x".repeat(40);
            let command = format!("*3\r\n$7\r\nPUBLISH\r\n$4\r\nbare\r\n$40\r\n{payload}\r\n");
            self.publishes.write_all(command.as_bytes()).unwrap();
            let mut answer = [0; 256];
            assert!(self.hears.read(&mut answer).unwrap() > 0);
            assert!(self.publishes.read(&mut answer).unwrap() > 0);
        }
    }

    /// How many messages a second are published to nobody, by 64 at a time.
    fn publish_rate(redis: &Redis) -> f64 {
        let port = redis.address.port().to_string();
        let arguments = ["-p", &port, "-c", "1", "-P", "64", "-n", "100000", "-q", "PUBLISH"];
        let payload = "x".repeat(40);
        let output =
            Command::new("redis-benchmark").args(arguments).args(["bare", &payload]).output();
        let output = String::from_utf8(output.unwrap().stdout).unwrap();
        let (before, _) = output.rsplit_once(" requests per second").expect(&output);
        let (_, rate) = before.rsplit_once(' ').expect(&output);
        rate.parse().expect(&output)
    }
}
