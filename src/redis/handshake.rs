//! What every connection to Redis begins with: who this node is, which database it wants, and whether that is a Redis for it.

use crate::redis::address::Address;
use crate::redis::fault::Fault;
use crate::redis::node::NodeId;
use crate::redis::resp::{self, Greeting};

/// Writes the command that every connection begins with.
pub(crate) fn hello(address: &Address, node: NodeId, buffer: &mut Vec<u8>) {
    let name = format!("rwf-{node}");
    let mut hello: Vec<&[u8]> = vec![b"HELLO", b"3"];
    if let Some(credentials) = &address.credentials {
        hello.extend([b"AUTH", credentials.user.as_bytes(), credentials.password.as_bytes()]);
    }
    hello.extend([&b"SETNAME"[..], name.as_bytes()]);
    resp::command(buffer, &hello);
}

/// Writes the command that names the database.
pub(crate) fn select(address: &Address, buffer: &mut Vec<u8>) {
    let database = address.database.to_string();
    resp::command(buffer, &[b"SELECT", database.as_bytes()]);
}

/// Whether a Redis that says this of itself is one that messages can go through, and a shard exactly where one is expected.
pub(crate) fn check(greeting: &Greeting<'_>, is_shard: bool) -> Result<(), Fault> {
    match greeting {
        Greeting { role: b"replica" | b"slave", .. } => Err(Fault::replica()),
        Greeting { mode, .. } if (*mode == b"cluster") != is_shard => {
            Err(Fault::redis_cluster(*mode == b"cluster"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_refused_and_so_is_a_cluster_where_none_is_expected_and_the_other_way_round() {
        for (role, mode, is_shard, expected) in [
            ("master", "standalone", false, Ok(())),
            ("master", "sentinel", false, Ok(())),
            ("master", "cluster", true, Ok(())),
            ("replica", "standalone", false, Err(Fault::replica())),
            ("slave", "cluster", true, Err(Fault::replica())),
            ("master", "cluster", false, Err(Fault::redis_cluster(true))),
            ("master", "standalone", true, Err(Fault::redis_cluster(false))),
        ] {
            let greeting = Greeting { role: role.as_bytes(), mode: mode.as_bytes() };
            assert_eq!(check(&greeting, is_shard), expected, "{role} {mode} {is_shard}");
        }
    }
}
