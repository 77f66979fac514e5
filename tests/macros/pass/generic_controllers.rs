//! Generic controllers with the derive: types, lifetimes, constants, bounds and `where` clauses.

use rwf::prelude::*;
use std::fmt::Display;
use std::sync::Arc;

#[derive(Default, macros::WebsocketController)]
struct Room<S>(S)
where
    S: Display + Send + Sync;

#[async_trait]
impl<S: Display + Send + Sync> WebsocketController for Room<S> {
    async fn handle_connection(&self, client: &SessionId) -> Result<(), Error> {
        Comms::websocket(client).send(self.0.to_string())?;
        Ok(())
    }
}

#[derive(Default, macros::WebsocketController)]
struct Limited<'a, T: Display + Send + Sync, const LIMIT: usize> {
    greeting: &'a str,
    item: Option<T>,
}

#[async_trait]
impl<T: Display + Send + Sync, const LIMIT: usize> WebsocketController for Limited<'_, T, LIMIT> {}

/// What the parameters have to be is said once, where the handlers are.
#[derive(Default, macros::WebsocketController)]
struct Plain<T> {
    item: T,
}

#[async_trait]
impl<T: Display + Send + Sync> WebsocketController for Plain<T> {
    async fn handle_connection(&self, client: &SessionId) -> Result<(), Error> {
        Comms::websocket(client).send(self.item.to_string())?;
        Ok(())
    }
}

fn controller<C: Controller>(_: &C) {}

fn main() {
    controller(&Room("a borrowed name".to_owned().as_str()));
    controller(&Limited::<u8, 7> { greeting: "hello", item: None });
    let shared = Arc::new(Plain { item: 7 });
    let chosen: Box<dyn Controller> = Box::new(Room("chosen"));
    let _ = vec![
        route!("/plain" => Plain::<String>),
        route!("/shared" => Arc::clone(&shared)),
        route!("/shared/too" => shared),
        route!("/chosen" => chosen),
        route!("/string" => Room::<String>),
        route!("/number" => Room(7)),
        route!("/limited" => Limited::<'static, u8, 7>),
    ];
}
