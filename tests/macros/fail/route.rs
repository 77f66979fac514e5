//! Wrong uses of `route!` that can be seen without knowing any type.

use rwf::prelude::*;

#[derive(Default, macros::WebsocketController)]
struct Echo;

#[async_trait]
impl WebsocketController for Echo {}

fn main() {
    let _ = route!();
    let _ = route!("/echo");
    let _ = route!("/echo", Echo);
    let _ = route!("/echo" =>);
    let _ = route!(=> Echo);
    let _ = route!("echo" => Echo);
    let _ = route!("" => Echo);
    let _ = route!(7 => Echo);
    let _ = route!("/a" => Echo, "/b" => Echo);
    let _ = route!("/a" => Echo; "/b" => Echo);
}
