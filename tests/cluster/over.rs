//! A Redis that is reached over TCP or over TLS, and what nodes are told of it.
#![allow(dead_code, reason = "each program uses its part")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(unreachable_pub, reason = "it is a module of each program")]

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};

use crate::common::Folder;
use crate::common::tls::Identity;
use crate::process::Node;
use crate::redis::{Proxy, Redis, free_address};

#[derive(Debug, Clone, Copy)]
pub enum Over {
    Tcp,
    Tls,
}

/// A Redis, which tests talk to over TCP in any case.
#[derive(Debug)]
pub struct Reached {
    redis: Redis,
    tls: Option<Tls>,
}

#[derive(Debug)]
struct Tls {
    address: SocketAddr,
    folder: Folder,
}

impl Reached {
    pub fn start(over: Over) -> Self {
        match over {
            Over::Tcp => Self { redis: Redis::start(), tls: None },
            Over::Tls => Self::secure(&["localhost", "127.0.0.1"], false),
        }
    }

    /// One whose certificate is for these hosts, and which may want one of its clients, the same.
    pub fn secure(hosts: &[&str], wants_certificates: bool) -> Self {
        let (identity, folder) = (Identity::new(hosts), Folder::new());
        let certificate = folder.write("cert.pem", &identity.certificate_pem);
        let key = folder.write("key.pem", &identity.key_pem);
        let wants = if wants_certificates { "yes" } else { "no" };
        let (redis, address) = Redis::start_where(|| {
            let address = free_address();
            let arguments = [
                ("--tls-port", &*address.port().to_string()),
                ("--tls-cert-file", certificate.to_str().unwrap()),
                ("--tls-key-file", key.to_str().unwrap()),
                ("--tls-ca-cert-file", certificate.to_str().unwrap()),
                ("--tls-auth-clients", wants),
            ];
            let arguments = arguments.map(|(name, value)| [name, value].map(ToOwned::to_owned));
            (arguments.into_iter().flatten().collect(), address)
        });
        Self { redis, tls: Some(Tls { address, folder }) }
    }

    /// Where nodes reach it.
    pub fn address(&self) -> SocketAddr {
        self.tls.as_ref().map_or(self.redis.address, |tls| tls.address)
    }

    pub fn url(&self) -> String {
        self.url_at(self.address())
    }

    pub fn url_through(&self, proxy: &Proxy) -> String {
        self.url_at(proxy.address)
    }

    fn url_at(&self, address: SocketAddr) -> String {
        match self.tls {
            None => format!("redis://{address}/"),
            Some(_) => format!("rediss://localhost:{}/", address.port()),
        }
    }

    pub fn node(&self, settings: &[&str]) -> Node {
        self.node_at(&self.url(), settings)
    }

    pub fn node_at(&self, url: &str, settings: &[&str]) -> Node {
        let roots = self.file("cert.pem").map(|file| format!("root_certificates={file}"));
        Node::start(url, &[settings, roots.as_deref().as_slice()].concat())
    }

    pub fn nodes<const N: usize>(&self, settings: &[&str]) -> [Node; N] {
        std::array::from_fn(|_| self.node(settings))
    }

    /// The path of its certificate, `cert.pem`, or its key, `key.pem`.
    pub fn file(&self, name: &str) -> Option<String> {
        let tls = self.tls.as_ref()?;
        Some(tls.folder.0.join(name).to_str().unwrap().to_owned())
    }
}

impl Deref for Reached {
    type Target = Redis;

    fn deref(&self) -> &Redis {
        &self.redis
    }
}

impl DerefMut for Reached {
    fn deref_mut(&mut self) -> &mut Redis {
        &mut self.redis
    }
}
