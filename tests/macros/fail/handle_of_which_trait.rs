//! A controller by hand has two methods `handle`: its own, and that of its WebSockets, which it has to name.

use rwf::prelude::*;

struct Echo;

#[async_trait]
impl WebsocketController for Echo {}

#[async_trait]
impl Controller for Echo {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        self.handle(request).await
    }
}

/// What the compiler proposes is right but for a `&`.
struct AsProposed;

#[async_trait]
impl WebsocketController for AsProposed {}

#[async_trait]
impl Controller for AsProposed {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        rwf::controller::WebsocketController::handle(&self, request).await
    }
}

fn main() {}
