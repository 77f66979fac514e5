//! The commands that subscribe, and those that ask for a sign of life: written, with what is to be answered noted.

use std::collections::VecDeque;

use crate::redis::dialect::Dialect;
use crate::redis::parcel;
use crate::redis::pending::Pending;
use crate::redis::queue::Queue;
use crate::redis::resp;
use crate::redis::subscriptions::{Order, Subscriptions};

/// How many channels one command names.
const MAX_CHANNELS: usize = 500;

/// Writes some of the orders; whether there may be more.
pub(crate) fn write_orders(
    dialect: Dialect,
    subscriptions: &Subscriptions,
    queue: &mut Queue,
    buffer: &mut Vec<u8>,
) -> bool {
    let orders = subscriptions.take_orders(MAX_CHANNELS);
    let Some(first) = orders.first() else { return false };
    let name = match first {
        Order::Subscribe(..) => dialect.subscribe().as_bytes(),
        Order::Unsubscribe(_) => dialect.unsubscribe().as_bytes(),
    };
    if dialect == Dialect::Sharded {
        let is_leaving = matches!(first, Order::Unsubscribe(_));
        // A command may name channels of one slot alone.
        for order in orders {
            let (Order::Subscribe(channel, _) | Order::Unsubscribe(channel)) = &order;
            resp::command(buffer, &[name, channel.as_bytes()]);
            if let Order::Subscribe(name, number) = order {
                queue.expect(Pending::Subscribe([(name, number)].into()));
            }
        }
        if is_leaving {
            resp::command(buffer, &[b"HELLO"]);
            queue.expect(Pending::Leave);
        }
        return true;
    }
    resp::array(buffer, 1 + orders.len());
    resp::bulk(buffer, &[name]);
    let mut subscribed = VecDeque::new();
    let count = orders.len();
    for order in orders {
        let (Order::Subscribe(name, _) | Order::Unsubscribe(name)) = &order;
        resp::bulk(buffer, &[name.as_bytes()]);
        if let Order::Subscribe(name, number) = order {
            subscribed.push_back((name, number));
        }
    }
    let is_subscribing = !subscribed.is_empty();
    queue.expect(match is_subscribing {
        true => Pending::Subscribe(subscribed),
        false => Pending::Unsubscribe(count),
    });
    true
}

/// Has a message come back to this node, by its own `channel`, and has Redis say what it is: a master may become a replica.
pub(crate) fn write_probe(
    dialect: Dialect,
    channel: &str,
    number: u64,
    queue: &mut Queue,
    buffer: &mut Vec<u8>,
) {
    // Of a shard no channel is this node's for sure; that it answers has to do.
    if dialect == Dialect::Plain {
        parcel::write_probe(channel, number, buffer);
        queue.expect(Pending::Probe);
    }
    resp::command(buffer, &[b"HELLO"]);
    queue.expect(Pending::Command("HELLO"));
}
