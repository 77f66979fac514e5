//! One node of a cluster, in a process of its own: a server that does what its input says.
//!
//! The first argument is the Redis, or `none`; further ones are settings, `name=value`, times in milliseconds, and
//! `tls_config=CERTIFICATE,KEY` for files. It prints its address,
//! answers each line of its input with a line, and runs until its input ends. `WHO` is `session:NAME`, `topic:NAME`,
//! `connection:ID`, `all`, `here` for all of this node, or `but:NAME` for all but a session:
//!
//! - `send WHO TEXT`, `latest WHO KEY TEXT`: to how many here, and what became of it elsewhere
//! - `burst WHO COUNT TEXT`: as many, each with its number behind it
//! - `close WHO CODE REASON`, `subscribe WHO TOPIC`, `unsubscribe WHO TOPIC`: how many it were here
//! - `is_connected WHO`, `members WHO`, `contains WHO SESSION`: who is there
//! - `request WHO MILLISECONDS TEXT`: the first answer, or why there is none
//! - `begin_request WHO TEXT`, `end_request`: the same for as long as it takes, which the second one waits for
//! - `request_all WHO COUNT`: as many at once, each with its number, which is to be the answer; how many were
//! - `flush WHO MILLISECONDS`: how many have received all, or why it is not known
//! - `watch NAME WHO`, `watch_in NAME PREFIX`, `unwatch NAME`: begins and ends to watch who comes and who goes
//! - `changes NAME`: who has come (`+`) and gone (`-`) since the last time, with the topic, if there is one
//! - `status`, `gaps`: how it is going, and what was missed; `missed TOPIC`: how many messages to a topic, as it was told
//! - `shutdown`

use std::collections::HashMap;
use std::env;
use std::error::Error as StdError;
use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rwf::cluster::Gap;
use rwf::comms::Presence;
use rwf::controller::Websocket;
use rwf::http::{Server, ServerHandle};
use rwf::prelude::*;

/// How long a handler waits for an answer.
const ASK_TIME: Duration = Duration::from_secs(20);

/// `/:user`: says its name and id, joins topics, and echoes.
fn serve(request: &Request) -> Result<Response, Error> {
    let user = request.param("user")?.to_string();
    request.with_session(user).upgrade(|mut socket| {
        let id = socket.connection_id();
        socket.send(format!("id {id}"))?;
        while let Some(message) = socket.recv()? {
            match message.as_text().and_then(|text| text.split_once(' ')) {
                Some(("join", topic)) => {
                    Comms::here()?.subscribe(topic)?;
                    socket.send(format!("joined {topic}"))?;
                }
                Some(("ask", who)) => {
                    let answer =
                        whom(who).map_err(|error| error.to_string())?.request("?", ASK_TIME);
                    socket.send(format!("{answer:?}"))?;
                }
                // To all tabs of the session, on whatever node they are.
                Some(("tell", text)) => drop(Comms::websocket(socket.session_id()).send(text)?),
                _ => socket.send(message)?,
            }
        }
        Ok(())
    })
}

fn whom(who: &str) -> Result<Comms, Box<dyn StdError>> {
    Ok(match who.split_once(':') {
        Some(("session", name)) => Comms::websocket(name),
        Some(("topic", name)) => Comms::topic(name),
        Some(("connection", id)) => Comms::connection(id.parse::<ConnectionId>()?),
        Some(("but", name)) => Comms::broadcast(name),
        _ if who == "all" => Comms::notify(),
        _ if who == "here" => Comms::notify().on_this_node(),
        _ => return Err(format!("nobody is {who:?}").into()),
    })
}

fn number(value: &str) -> usize {
    if value == "max" {
        return usize::MAX;
    }
    value.parse().expect("a number")
}

fn with_settings(mut cluster: Cluster, settings: &[String]) -> Cluster {
    for setting in settings {
        let (name, value) = setting.split_once('=').expect("name=value");
        let time = || match value {
            "max" => Duration::MAX,
            _ => Duration::from_millis(number(value) as u64),
        };
        cluster = match name {
            "prefix" => cluster.prefix(value),
            "connect_timeout" => cluster.connect_timeout(time()),
            "subscribe_timeout" => cluster.subscribe_timeout(time()),
            "ask_timeout" => cluster.ask_timeout(time()),
            "presence_lease" => cluster.presence_lease(time()),
            "probe_interval" => cluster.probe_interval(time()),
            "probe_timeout" => cluster.probe_timeout(time()),
            "max_reconnect_delay" => cluster.max_reconnect_delay(time()),
            "max_message_size" => cluster.max_message_size(number(value)),
            "max_waiting_bytes" => cluster.max_waiting_bytes(number(value)),
            "max_waiting_age" => cluster.max_waiting_age(time()),
            #[cfg(feature = "tls")]
            "root_certificates" => cluster.root_certificates(value),
            #[cfg(feature = "tls")]
            "tls_config" => cluster.tls_config(tls::config(value)),
            "outbox_bytes" => cluster,
            _ => panic!("no setting {name:?}"),
        };
    }
    cluster
}

#[cfg(feature = "tls")]
mod tls {
    use rwf::rustls::crypto::ring;
    use rwf::rustls::pki_types::pem::PemObject;
    use rwf::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rwf::rustls::{ClientConfig, RootCertStore};

    /// Shows the certificate of the first file, with the key in the second one, and believes it.
    pub(crate) fn config(files: &str) -> ClientConfig {
        let (certificate, key) = files.split_once(',').expect("two files");
        let certificate = CertificateDer::from_pem_file(certificate).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(key).expect("a key");
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).expect("a root");
        ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key)
            .expect("a key that fits")
    }
}

struct Node {
    server: ServerHandle,
    cluster: Cluster,
    gaps: Arc<Mutex<Vec<Gap>>>,
    watches: Mutex<HashMap<String, Presence>>,
    asking: Mutex<Option<JoinHandle<String>>>,
}

fn answer_of(comms: &Comms, text: &str, time: Duration) -> String {
    match comms.request(text, time) {
        Ok(answer) => format!("{answer:?}"),
        Err(error) => format!("{error:?}: {error}"),
    }
}

impl Node {
    fn watch(&self, name: &str, presence: Presence) -> String {
        self.watches.lock().insert(name.to_owned(), presence);
        String::new()
    }

    fn do_what(&self, line: &str) -> Result<String, Box<dyn StdError>> {
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().unwrap_or_default();
        let (command, who, rest) = (word(), word(), word());
        let (first, last) = rest.split_once(' ').unwrap_or((rest, ""));
        Ok(match command {
            "send" => {
                let outcome = whom(who)?.send_to_each(rest);
                format!("{} {:?}", outcome.queued, outcome.elsewhere)
            }
            "latest" => whom(who)?.send_latest(first, last)?.to_string(),
            "burst" => {
                let (comms, began) = (whom(who)?, Instant::now());
                for count in 0..number(first) {
                    let _ = comms.send(format!("{last} {count}"));
                }
                began.elapsed().as_micros().to_string()
            }
            "close" => whom(who)?.close(first.parse::<u16>()?, last)?.to_string(),
            "subscribe" => whom(who)?.subscribe(rest)?.to_string(),
            "unsubscribe" => whom(who)?.unsubscribe(rest).to_string(),
            "is_connected" => whom(who)?.is_connected().to_string(),
            "members" => {
                let members = whom(who)?.members();
                let mut sessions: Vec<_> =
                    members.sessions().iter().map(ToString::to_string).collect();
                sessions.sort();
                let counts = (members.client_count(), members.session_count());
                format!("{counts:?} {}", sessions.join(" "))
            }
            "contains" => match first.strip_prefix("connection:") {
                Some(id) => whom(who)?.members().contains(id.parse::<ConnectionId>()?).to_string(),
                None => whom(who)?.members().contains(first).to_string(),
            },
            "request" => answer_of(&whom(who)?, last, Duration::from_millis(number(first) as u64)),
            "begin_request" => {
                let (comms, text) = (whom(who)?, rest.to_owned());
                let asking = thread::spawn(move || answer_of(&comms, &text, Duration::MAX));
                *self.asking.lock() = Some(asking);
                String::new()
            }
            "end_request" => {
                let asking = self.asking.lock().take().ok_or("nobody asks")?;
                asking.join().map_err(|_| "it panicked")?
            }
            "request_all" => {
                let comms = whom(who)?;
                let ask = |number: usize| {
                    let (comms, number) = (comms.clone(), number.to_string());
                    thread::spawn(move || {
                        comms.request(&number, ASK_TIME).is_ok_and(|it| it == *number)
                    })
                };
                let asking: Vec<_> = (0..number(first)).map(ask).collect();
                let answered = asking.into_iter().filter_map(|asking| asking.join().ok());
                answered.filter(|is_right| *is_right).count().to_string()
            }
            "flush" => match whom(who)?.flush(Duration::from_millis(number(first) as u64)) {
                Ok(count) => count.to_string(),
                Err(error) => format!("{error:?}"),
            },
            "watch" => self.watch(who, whom(rest)?.presence()?),
            "watch_in" => self.watch(who, Comms::presence_in(rest)?),
            "unwatch" => {
                drop(self.watches.lock().remove(who));
                String::new()
            }
            "changes" => {
                let watches = self.watches.lock();
                let changes = watches.get(who).ok_or("nobody watches that")?.try_iter();
                let texts: Vec<_> = changes
                    .map(|change| {
                        let sign = if change.has_joined() { '+' } else { '-' };
                        let topic = change.topic().map(|topic| format!("/{topic}"));
                        format!("{sign}{}{}", change.session_id(), topic.unwrap_or_default())
                    })
                    .collect();
                texts.join(" ")
            }
            "status" => format!("{:?}", self.cluster.status()),
            "gaps" => {
                let gaps: Vec<_> = self.gaps.lock().iter().map(ToString::to_string).collect();
                gaps.join(" | ")
            }
            "missed" => {
                let topic = format!("Topic({who:?})");
                let count = |gap: &Gap| match gap {
                    Gap::Missed { count, comms, .. } if format!("{comms:?}").contains(&topic) => {
                        *count
                    }
                    _ => 0,
                };
                self.gaps.lock().iter().map(count).sum::<u64>().to_string()
            }
            "shutdown" => format!("{:?}", self.server.shutdown()?),
            _ => return Err(format!("no command {line:?}").into()),
        })
    }
}

fn main() -> Result<(), Box<dyn StdError>> {
    let environment = env_logger::Env::default().default_filter_or("rwf::cluster=info,error");
    env_logger::Builder::from_env(environment).init();
    let mut arguments: Vec<_> = env::args().skip(1).collect();
    let url = arguments.remove(0);
    let gaps = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&gaps);
    let cluster = Cluster::redis(&url).on_gap(move |gap| told.lock().push(gap.clone()));
    let cluster = with_settings(cluster, &arguments);
    let mut websocket = Websocket::new();
    for bytes in arguments.iter().filter_map(|setting| setting.strip_prefix("outbox_bytes=")) {
        websocket = websocket.outbox_bytes(number(bytes));
    }
    let mut server = Server::new(vec![route!("/:user" => serve)]).websocket(websocket);
    if url != "none" {
        server = server.cluster(cluster.clone());
    }
    let server = server.bind("127.0.0.1:0").spawn()?;
    let node = Node { server, cluster, gaps, watches: Mutex::default(), asking: Mutex::default() };
    let mut output = io::stdout();
    writeln!(output, "{}", node.server.local_addr())?;
    for line in io::stdin().lock().lines() {
        let answer = node.do_what(&line?).unwrap_or_else(|error| format!("error: {error}"));
        writeln!(output, "{answer}")?;
    }
    Ok(())
}
